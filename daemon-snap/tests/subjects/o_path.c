/* O_PATH descriptors of a file, a directory, a symbolic link and a socket stay usable as places. */
#include "subject.h"
#include <sys/socket.h>
#include <sys/un.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    write_file(in_dir("file"), "content", 7);
    SYS(mkdir(in_dir("directory"), 0755));
    SYS(symlink("file", in_dir("link")));
    SYS(mknod(in_dir("fifo"), S_IFIFO | 0600, 0));
    int file = SYS(open(in_dir("file"), O_PATH | O_CLOEXEC));
    int directory = SYS(open(in_dir("directory"), O_PATH | O_DIRECTORY));
    int link_fd = SYS(open(in_dir("link"), O_PATH | O_NOFOLLOW));
    int fifo = SYS(open(in_dir("fifo"), O_PATH));
    subject_hold();

    char bytes[16], path[64];
    CHECK(read(file, bytes, 1) < 0 && errno == EBADF, "the O_PATH descriptor can be read");
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    CHECK_EQ(read_file(path, bytes, sizeof bytes), 7);
    int made = SYS(openat(directory, "made", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    close(made);
    CHECK(access(in_dir("directory/made"), F_OK) == 0, "made in another directory");
    long len = SYS(readlinkat(link_fd, "", bytes, sizeof bytes));
    CHECK(len == 4 && memcmp(bytes, "file", 4) == 0, "the link leads to %.*s", (int)len, bytes);
    struct stat status;
    SYS(fstat(fifo, &status));
    CHECK(S_ISFIFO(status.st_mode), "mode of the FIFO is 0%o", status.st_mode);
    CHECK(fcntl(file, F_GETFL) & O_PATH, "O_PATH was lost");
    subject_pass();
}
