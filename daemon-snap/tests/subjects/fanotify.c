/* Groups of fanotify that are only notified: marks on inodes, a mount and a file system, what they leave out, how their events look. */
#include "subject.h"
#include <poll.h>
#include <sys/fanotify.h>
#include <sys/mount.h>

#ifndef FAN_REPORT_DFID_NAME
#define FAN_REPORT_DFID_NAME 0xc00
#endif
#ifndef FAN_MARK_IGNORE_SURV
#define FAN_MARK_IGNORE_SURV (0x400 | FAN_MARK_IGNORED_SURV_MODIFY)
#endif

static char own_mount[300];

static void mark(int group, unsigned how, uint64_t mask, const char *path)
{
    SYS(fanotify_mark(group, FAN_MARK_ADD | how, mask, AT_FDCWD, path));
}

/* The events that are there, as one mask; their descriptors are closed. */
static uint64_t take(int group, int *count, bool has_fd)
{
    static char bytes[8192] __attribute__((aligned(8)));
    uint64_t mask = 0;
    ssize_t len = read(group, bytes, sizeof bytes);
    CHECK(len > 0 || errno == EAGAIN, "reading a group: %s", strerror(errno));
    struct fanotify_event_metadata *event = (void *)bytes;
    *count = 0;
    for (; len > 0 && FAN_EVENT_OK(event, len); event = FAN_EVENT_NEXT(event, len)) {
        mask |= event->mask;
        ++*count;
        CHECK_EQ(event->fd >= 0, has_fd);
        CHECK_EQ(event->pid, getpid());
        if (event->fd >= 0) {
            CHECK_EQ(fcntl(event->fd, F_GETFD), FD_CLOEXEC);
            close(event->fd);
        }
    }
    return mask;
}

static void touch(const char *path)
{
    int fd = SYS(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    SYS(write(fd, "x", 1));
    close(fd);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char watched[300], ignored[300], plain[300], made[320];
    strcpy(watched, in_dir("watched"));
    strcpy(own_mount, in_dir("mount"));
    snprintf(ignored, sizeof ignored, "%.280s/ignored", watched);
    snprintf(plain, sizeof plain, "%.280s/plain", watched);
    snprintf(made, sizeof made, "%s/made", own_mount);
    SYS(mkdir(watched, 0755));
    SYS(mkdir(own_mount, 0755));
    touch(ignored);
    touch(plain);
    SYS(mount("subject", own_mount, "tmpfs", 0, NULL));
    int files = SYS(fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK, O_RDONLY | O_CLOEXEC | O_LARGEFILE));
    int names = SYS(fanotify_init(FAN_CLASS_NOTIF | FAN_NONBLOCK | FAN_UNLIMITED_QUEUE | FAN_REPORT_DFID_NAME, O_RDONLY));
    mark(files, 0, FAN_MODIFY | FAN_CLOSE_WRITE | FAN_EVENT_ON_CHILD, watched);
    mark(files, FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY, FAN_MODIFY, ignored);
    mark(files, FAN_MARK_MOUNT, FAN_OPEN, own_mount);
    mark(names, FAN_MARK_FILESYSTEM, FAN_CREATE | FAN_DELETE | FAN_ONDIR, own_mount);
    mark(names, FAN_MARK_IGNORE_SURV, FAN_OPEN, ignored);
    int idle = SYS(fanotify_init(FAN_CLASS_NOTIF | FAN_UNLIMITED_MARKS, O_RDWR));
    subject_hold();

    int count;
    CHECK_EQ(take(files, &count, true), 0);
    CHECK_EQ(take(names, &count, false), 0);
    struct pollfd nothing = {idle, POLLIN, 0};
    CHECK_EQ(poll(&nothing, 1, 0), 0);
    touch(plain);
    CHECK_EQ(take(files, &count, true), FAN_MODIFY | FAN_CLOSE_WRITE);
    touch(ignored);
    CHECK_EQ(take(files, &count, true), FAN_CLOSE_WRITE);
    touch(made);
    CHECK_EQ(take(files, &count, true), FAN_OPEN);
    CHECK_EQ(take(names, &count, false), FAN_CREATE);
    SYS(unlink(made));
    CHECK_EQ(take(names, &count, false), FAN_DELETE);
    SYS(fanotify_mark(files, FAN_MARK_REMOVE | FAN_MARK_MOUNT, FAN_OPEN, AT_FDCWD, own_mount));
    close(files), close(names);
    SYS(umount2(own_mount, MNT_DETACH));
    subject_pass();
}
