/* Variants path, abstract, seqpacket, removed, renamed, linked: a listening unix socket accepts afterwards, at the same address, with the
 * owner and mode its node had (removed: the node was unlinked by its owner and stays so; renamed, linked: clients find it under another name than it was bound to, and only
 * there). */
#include "subject.h"
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sockaddr_un address = {.sun_family = AF_UNIX}, seen;
    socklen_t len = sizeof address;
    bool path = !variant("abstract");
    if (path) {
        strcpy(address.sun_path, in_shm("socket"));
    } else {
        snprintf(address.sun_path + 1, 90, "subject-%d\1\2", getpid());
        len = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(address.sun_path + 1);
    }
    int type = variant("seqpacket") ? SOCK_SEQPACKET : SOCK_STREAM;
    int listener = SYS(socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    SYS(setsockopt(listener, SOL_SOCKET, SO_PASSCRED, &(int){1}, sizeof(int)));
    SYS(bind(listener, (void *)&address, len));
    if (path) {
        SYS(chmod(address.sun_path, 0620));
        SYS(chown(address.sun_path, 1234, 4321));
    }
    SYS(listen(listener, 17));
    if (variant("removed"))
        SYS(unlink(address.sun_path));
    struct sockaddr_un other = address;
    if (variant("renamed") || variant("linked")) {
        strcpy(other.sun_path, in_shm("other"));
        if (variant("linked")) {
            SYS(link(address.sun_path, other.sun_path));
            SYS(unlink(address.sun_path));
        } else {
            SYS(rename(address.sun_path, other.sun_path));
        }
    }
    subject_hold();

    socklen_t seen_len = sizeof seen;
    int value = 0;
    socklen_t value_len = sizeof value;
    SYS(getsockname(listener, (void *)&seen, &seen_len));
    CHECK(memcmp(&seen, &address, offsetof(struct sockaddr_un, sun_path) + 20) == 0, "bound elsewhere");
    SYS(getsockopt(listener, SOL_SOCKET, SO_ACCEPTCONN, &value, &value_len));
    CHECK_EQ(value, 1);
    SYS(getsockopt(listener, SOL_SOCKET, SO_PASSCRED, &value, &value_len));
    CHECK_EQ(value, 1);
    CHECK(accept(listener, NULL, NULL) < 0 && errno == EAGAIN, "a client from nowhere");
    struct stat status;
    if (variant("removed")) {
        CHECK(stat(address.sun_path, &status) < 0 && errno == ENOENT, "the removed node is back");
        subject_pass();
    }
    if (strcmp(other.sun_path, address.sun_path) != 0 && path)
        CHECK(stat(address.sun_path, &status) < 0 && errno == ENOENT, "the name of before is back");
    if (path) {
        SYS(stat(other.sun_path, &status));
        CHECK_EQ(status.st_mode, S_IFSOCK | 0620);
        CHECK_EQ(status.st_uid, 1234);
        CHECK_EQ(status.st_gid, 4321);
    }
    int clients[10];
    for (int i = 0; i < 10; i++) { /* fits the backlog */
        clients[i] = SYS(socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
        SYS(connect(clients[i], (void *)&other, len));
        SYS(send(clients[i], "hello", 5, 0));
    }
    for (int i = 0; i < 10; i++) {
        char bytes[8];
        int server = SYS(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
        CHECK_EQ(recv(server, bytes, sizeof bytes, 0), 5);
        close(server), close(clients[i]);
    }
    subject_pass();
}
