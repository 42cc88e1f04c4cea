/* Unix sockets that are bound to relative paths, as postfix does it: names and nodes stay, clients connect again. Variants disk, tmpfs, renamed, child (the process that
 * made them has gone elsewhere, another one is still there), nobody (no process works there any more). */
#include "subject.h"
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

static const char *base;

static struct sockaddr_un named(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, name);
    return address;
}

static int bound(int type, const char *name)
{
    struct sockaddr_un address = named(name);
    int fd = SYS(socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    SYS(bind(fd, (void *)&address, sizeof address));
    SYS(chmod(name, 0604));
    SYS(chown(name, 77, 88));
    return fd;
}

static void connect_to(int fd, const char *name)
{
    struct sockaddr_un address = named(name);
    SYS(connect(fd, (void *)&address, sizeof address));
}

static int client(int type, const char *name)
{
    int fd = SYS(socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    connect_to(fd, name);
    return fd;
}

static void check_name(int fd, bool peer, const char *name)
{
    struct sockaddr_un seen = {0};
    socklen_t len = sizeof seen;
    SYS(peer ? getpeername(fd, (void *)&seen, &len) : getsockname(fd, (void *)&seen, &len));
    CHECK(strcmp(seen.sun_path, name) == 0, "fd %d has %s, wanted %s", fd, seen.sun_path, name);
    CHECK_EQ(len, offsetof(struct sockaddr_un, sun_path) + strlen(name) + 1);
}

static void check_node(const char *name)
{
    struct stat status;
    SYS(stat(name, &status));
    CHECK_EQ(status.st_mode, S_IFSOCK | 0604);
    CHECK_EQ(status.st_uid, 77);
    CHECK_EQ(status.st_gid, 88);
}

static void check_talk(int from, int to)
{
    char bytes[8];
    CHECK_EQ(SYS(send(from, "hello", 5, 0)), 5);
    CHECK_EQ(recv(to, bytes, sizeof bytes, 0), 5);
}

static void child(void *unused)
{
    (void)unused;
    member_hold("child");
    check_node("public/first");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static char path[256];
    base = path;
    strcpy(path, variant("tmpfs") ? subject_shm_dir : subject_dir);
    SYS(chdir(base));
    SYS(mkdir("public", 0755));
    int listener = bound(SOCK_STREAM, "public/first");
    SYS(listen(listener, 9));
    int second = bound(SOCK_SEQPACKET, "./second");
    SYS(listen(second, 9));
    int alone = bound(SOCK_DGRAM, "public/../alone");
    int ours = client(SOCK_STREAM, "public/first");
    int accepted = SYS(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
    int lost = client(SOCK_SEQPACKET, "second");
    SYS(close(SYS(accept(second, NULL, NULL))));
    int waiting = client(SOCK_STREAM, "public/first");
    const char *first = "public/first";
    if (variant("renamed"))
        SYS(rename("public/first", first = "public/moved"));
    pid_t pid = 0;
    if (variant("child")) {
        pid = fork_member(child, NULL);
        await_member("child");
        SYS(chdir("/"));
    } else if (variant("nobody"))
        SYS(chdir("/"));
    subject_hold();
    if (pid) {
        reap(pid);
        SYS(chdir(base));
    } else
        SYS(chdir(base));
    check_name(listener, false, "public/first");
    check_name(second, false, "./second");
    check_name(alone, false, "public/../alone");
    check_name(ours, true, "public/first");
    check_name(accepted, false, "public/first");
    check_name(lost, true, "./second");
    check_name(waiting, true, "public/first");
    check_node(first);
    check_node("second");
    check_node("alone");
    if (variant("renamed"))
        CHECK(access("public/first", F_OK) < 0, "the name of before is back");
    check_talk(ours, accepted);
    check_talk(accepted, ours);
    char bytes[8];
    CHECK_EQ(recv(lost, bytes, sizeof bytes, 0), 0);
    int late = SYS(accept(listener, NULL, NULL));
    check_talk(waiting, late);
    int another = client(SOCK_STREAM, first), taken = SYS(accept(listener, NULL, NULL));
    check_talk(another, taken);
    int letter = client(SOCK_DGRAM, "alone");
    check_talk(letter, alone);
    subject_pass();
}
