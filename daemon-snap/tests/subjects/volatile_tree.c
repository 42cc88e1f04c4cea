/* Everything below a directory that a reboot empties comes back: files with owner, mode, time and attributes, empty directories,
 * links of both kinds, FIFOs, and the node of a socket that nobody has any more. The dump is told of the directory. */
#include "subject.h"
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/xattr.h>

static bool has_xattrs;

static void check_node(const char *name, mode_t mode, uid_t uid)
{
    struct stat status;
    SYS(lstat(in_shm(name), &status));
    CHECK(status.st_mode == mode && status.st_uid == uid, "%s has mode 0%o, owner %d; wanted 0%o, %d", name,
          status.st_mode, status.st_uid, mode, uid);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char target[128] = "";
    SYS(mkdir(in_shm("tree"), 0750));
    SYS(mkdir(in_shm("tree/empty"), 0700));
    SYS(chmod(in_shm("tree/empty"), 01777));
    SYS(chown(in_shm("tree/empty"), 1234, 4321));
    write_file(in_shm("tree/pid"), "4711\n", 5);
    SYS(chmod(in_shm("tree/pid"), 0604));
    SYS(chown(in_shm("tree/pid"), 1234, 4321));
    has_xattrs = setxattr(in_shm("tree/pid"), "user.mark", "value", 5, 0) == 0 &&
                 setxattr(in_shm("tree/empty"), "trusted.mark", "dir", 3, 0) == 0;
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1234567890, .tv_nsec = 5}};
    SYS(utimensat(AT_FDCWD, in_shm("tree/pid"), times, 0));
    SYS(link(in_shm("tree/pid"), in_shm("tree/second-name")));
    SYS(symlink("../elsewhere", in_shm("tree/link")));
    SYS(lchown(in_shm("tree/link"), 1234, 4321));
    SYS(mkfifo(in_shm("tree/fifo"), 0620));
    SYS(chmod(in_shm("tree/fifo"), 0620));
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", in_shm("tree/dead"));
    int fd = SYS(socket(AF_UNIX, SOCK_STREAM, 0));
    SYS(bind(fd, (void *)&address, sizeof address));
    close(fd);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", in_shm("tree/live"));
    fd = SYS(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(bind(fd, (void *)&address, sizeof address));
    SYS(listen(fd, 1));
    subject_hold();
    check_node("tree", S_IFDIR | 0750, 0);
    check_node("tree/empty", S_IFDIR | 01777, 1234);
    check_node("tree/pid", S_IFREG | 0604, 1234);
    check_node("tree/link", S_IFLNK | 0777, 1234);
    check_node("tree/fifo", S_IFIFO | 0620, 0);
    char text[16];
    CHECK_EQ(read_file(in_shm("tree/pid"), text, sizeof text), 5);
    CHECK(strcmp(text, "4711\n") == 0, "the PID file holds %s", text);
    struct stat first, second;
    SYS(stat(in_shm("tree/pid"), &first));
    SYS(stat(in_shm("tree/second-name"), &second));
    CHECK(first.st_ino == second.st_ino && first.st_nlink == 2, "the two names are of two files");
    CHECK(first.st_mtim.tv_sec == 1234567890 && first.st_mtim.tv_nsec == 5, "the time is %ld", (long)first.st_mtim.tv_sec);
    SYS(readlink(in_shm("tree/link"), target, sizeof target - 1));
    CHECK(strcmp(target, "../elsewhere") == 0, "the link leads to %s", target);
    SYS(lstat(in_shm("tree/dead"), &first));
    CHECK(S_ISSOCK(first.st_mode), "the dead socket is no socket");
    if (has_xattrs) {
        CHECK_EQ(getxattr(in_shm("tree/pid"), "user.mark", text, sizeof text), 5);
        CHECK_EQ(getxattr(in_shm("tree/empty"), "trusted.mark", text, sizeof text), 3);
    }
    int client = SYS(socket(AF_UNIX, SOCK_STREAM, 0));
    SYS(connect(client, (void *)&address, sizeof address));
    subject_pass();
}
