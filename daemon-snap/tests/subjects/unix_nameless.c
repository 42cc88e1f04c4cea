/* Unix sockets whose name leads to them no more: an unlinked listener with a connection and a client that waits, the
 * end of a connection whose listener is gone, a datagram socket with a message of a stranger from a relative path.
 * Variants: what has their names today. plain: nothing; fifo: FIFOs; socket: other sockets of the same process;
 * gone: not even the directory is there; relative: they were bound from a working directory that is gone. */
#include "subject.h"
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

static char place[256];

static struct sockaddr_un named(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (variant("relative"))
        snprintf(address.sun_path, sizeof address.sun_path, "../place/./%s", name);
    else
        snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", place, name);
    return address;
}

static int bound(int type, const char *name)
{
    struct sockaddr_un address = named(name);
    int fd = SYS(socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    SYS(bind(fd, (void *)&address, sizeof address));
    if (type != SOCK_DGRAM)
        SYS(listen(fd, 5));
    return fd;
}

static int client(int type, const char *name)
{
    struct sockaddr_un address = named(name);
    int fd = SYS(socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    SYS(connect(fd, (void *)&address, sizeof address));
    return fd;
}

static void check_name(int fd, bool peer, const char *name)
{
    struct sockaddr_un seen = {0}, wanted = named(name);
    socklen_t len = sizeof seen;
    SYS(peer ? getpeername(fd, (void *)&seen, &len) : getsockname(fd, (void *)&seen, &len));
    CHECK(strcmp(seen.sun_path, wanted.sun_path) == 0, "fd %d has %s, wanted %s", fd, seen.sun_path, wanted.sun_path);
    CHECK_EQ(len, offsetof(struct sockaddr_un, sun_path) + strlen(wanted.sun_path) + 1);
}

static void check_talk(int from, int to)
{
    char bytes[8];
    CHECK_EQ(SYS(send(from, "hello", 5, 0)), 5);
    CHECK_EQ(recv(to, bytes, sizeof bytes, 0), 5);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static const char *const names[] = {"listener", "closed", "inbox"};
    strcpy(place, in_dir("place"));
    SYS(mkdir(place, 0755));
    SYS(chdir(place));
    int listener = bound(SOCK_STREAM, "listener"), closed = bound(SOCK_SEQPACKET, "closed");
    int inbox = bound(SOCK_DGRAM, "inbox");
    int ours = client(SOCK_STREAM, "listener"), accepted = SYS(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
    int waiting = client(SOCK_STREAM, "listener");
    int left = client(SOCK_SEQPACKET, "closed"), right = SYS(accept4(closed, NULL, NULL, SOCK_CLOEXEC));
    close(closed);
    struct sockaddr_un to = named("inbox"), from = {AF_UNIX, "stranger"};
    int stranger = SYS(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    SYS(bind(stranger, (void *)&from, sizeof from));
    SYS(sendto(stranger, "letter", 6, 0, (void *)&to, sizeof to));
    close(stranger);
    SYS(unlink("stranger"));
    int other[3] = {-1, -1, -1};
    bool is_clear = !variant("socket"); /* otherwise two have the name, and the dump is refused */
    int sender = is_clear ? client(SOCK_DGRAM, "inbox") : -1;
    for (int i = 0; i < 3; i++) {
        SYS(unlink(names[i]));
        if (variant("fifo"))
            SYS(mkfifo(names[i], 0640));
        if (variant("socket"))
            other[i] = bound(i == 2 ? SOCK_DGRAM : SOCK_STREAM, names[i]);
    }
    SYS(chdir("/"));
    if (variant("gone") || variant("relative"))
        SYS(rmdir(place));
    subject_hold();

    check_name(listener, false, "listener");
    check_name(inbox, false, "inbox");
    check_name(ours, true, "listener");
    check_name(accepted, false, "listener");
    check_name(waiting, true, "listener");
    check_name(left, true, "closed");
    check_name(right, false, "closed");
    check_talk(ours, accepted), check_talk(accepted, ours);
    check_talk(left, right), check_talk(right, left);
    int late = SYS(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
    check_talk(late, waiting);
    CHECK(accept(listener, NULL, NULL) < 0 && errno == EAGAIN, "a client from nowhere");
    char bytes[8];
    socklen_t len = sizeof from;
    memset(&from, 0, sizeof from);
    CHECK_EQ(recvfrom(inbox, bytes, sizeof bytes, 0, (void *)&from, &len), 6);
    CHECK(strcmp(from.sun_path, "stranger") == 0, "the letter came from %s", from.sun_path);
    if (is_clear)
        check_talk(sender, inbox);
    struct stat status;
    bool is_there = stat(place, &status) == 0;
    CHECK_EQ(is_there, !variant("gone") && !variant("relative"));
    for (int i = 0; i < 3 && is_there; i++) {
        char path[300];
        snprintf(path, sizeof path, "%s/%s", place, names[i]);
        CHECK_EQ(stat(path, &status), variant("plain") ? -1 : 0);
        if (variant("fifo"))
            CHECK_EQ(status.st_mode, S_IFIFO | 0640);
        if (variant("socket")) {
            check_name(other[i], false, names[i]);
            int another = client(i == 2 ? SOCK_DGRAM : SOCK_STREAM, names[i]);
            int end = i == 2 ? other[i] : SYS(accept(other[i], NULL, NULL));
            check_talk(another, end);
        }
    }
    subject_pass();
}
