/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * How a service hears that fastboot takes its image, and that it was restored from one: so that it can drop before what cannot be
 * carried or must not be repeated (connections, keys, caches), and get it back after.
 *
 *   int hooks = fastboot_hooks_open();             once, before the service says that it is ready; -1 with errno
 *   poll() it for POLLIN with everything else, then:
 *   switch (fastboot_hooks_next(hooks)) {
 *   case FASTBOOT_BEFORE_SNAPSHOT: drop; break;
 *   case FASTBOOT_AFTER_SNAPSHOT:  the image has been taken, or not; get it back; break;
 *   case FASTBOOT_AFTER_RESTORE:   this is another boot; get it back; break;
 *   case FASTBOOT_NOTHING:         continue;
 *   }
 *   fastboot_hooks_done(hooks, NULL);              or a reason: then no image is taken, or the service is started cold
 *
 * fastboot waits at most ten seconds, and at a restore at most until the start would take too long. Without fastboot nothing ever
 * arrives. The protocol, for other languages: a memory file named "fastboot-hooks" (memfd_create(2)) holds, as text, the number of a
 * descriptor in the same process: one end of a pair of unix datagram sockets. fastboot takes a duplicate of that end
 * (pidfd_getfd(2)), sends "before-snapshot", "after-snapshot" or "after-restore", and waits for "ok" or a reason. Both ends
 * and the file stay open as long as the service wants to hear; a child that is forked has them too and must not read.
 */
#ifndef FASTBOOT_HOOKS_H
#define FASTBOOT_HOOKS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum fastboot_event {
    FASTBOOT_NOTHING,
    FASTBOOT_BEFORE_SNAPSHOT,
    FASTBOOT_AFTER_SNAPSHOT,
    FASTBOOT_AFTER_RESTORE
};

static inline int fastboot_hooks_open(void) {
    int pair[2], memory, len, error;
    char text[16];
    if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return -1;
    memory = (int) syscall(SYS_memfd_create, "fastboot-hooks", 1u /* MFD_CLOEXEC */);
    len = snprintf(text, sizeof text, "%d\n", pair[1]);
    if (memory >= 0 && write(memory, text, (size_t) len) == len)
        return pair[0];
    error = errno;
    if (memory >= 0)
        close(memory);
    close(pair[0]);
    close(pair[1]);
    errno = error;
    return -1;
}

static inline enum fastboot_event fastboot_hooks_next(int hooks) {
    char text[32];
    ssize_t len = recv(hooks, text, sizeof text - 1, MSG_DONTWAIT);
    text[len > 0 ? len : 0] = 0;
    if (!strcmp(text, "before-snapshot"))
        return FASTBOOT_BEFORE_SNAPSHOT;
    if (!strcmp(text, "after-snapshot"))
        return FASTBOOT_AFTER_SNAPSHOT;
    return strcmp(text, "after-restore") ? FASTBOOT_NOTHING : FASTBOOT_AFTER_RESTORE;
}

/* 0, or -1 with errno. */
static inline int fastboot_hooks_done(int hooks, const char *failure) {
    const char *answer = failure ? failure : "ok";
    return send(hooks, answer, strlen(answer), MSG_NOSIGNAL) < 0 ? -1 : 0;
}

#endif
