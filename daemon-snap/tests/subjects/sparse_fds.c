/* Descriptor numbers up to 1000 with gaps: each leads where it did, every gap stays free. */
#include "subject.h"

static int kind_of(int fd)
{
    return fd < 3 ? 9 : fd % 7 == 0 ? 1 + fd % 3 : 0;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct rlimit files = {2048, 4096};
    SYS(setrlimit(RLIMIT_NOFILE, &files));
    write_file(in_dir("a"), "a", 1);
    write_file(in_dir("b"), "b", 1);
    int a = SYS(open(in_dir("a"), O_RDONLY)), b = SYS(open(in_dir("b"), O_RDONLY));
    SYS(dup2(a, 1500));
    SYS(dup2(b, 1501));
    close(a), close(b);
    for (int fd = 3; fd <= 1000; fd++)
        if (kind_of(fd) == 1)
            SYS(dup3(1500, fd, fd % 2 ? O_CLOEXEC : 0));
        else if (kind_of(fd) == 2)
            SYS(dup2(1501, fd));
        else if (kind_of(fd) == 3) {
            int own = SYS(open("/dev/null", O_RDWR));
            if (own != fd)
                SYS(dup2(own, fd)), close(own);
        }
    close(1500), close(1501);
    subject_hold();
    for (int fd = 3; fd <= 1600; fd++) {
        char byte = 0;
        int kind = fd <= 1000 ? kind_of(fd) : 0;
        if (kind == 0)
            CHECK(fcntl(fd, F_GETFD) < 0, "descriptor %d is open", fd);
        else if (kind == 3)
            CHECK_EQ(read(fd, &byte, 1), 0);
        else
            CHECK(pread(fd, &byte, 1, 0) == 1 && byte == (kind == 1 ? 'a' : 'b'), "descriptor %d reads %c", fd, byte);
        if (kind)
            CHECK_EQ(fcntl(fd, F_GETFD), kind == 1 && fd % 2 ? FD_CLOEXEC : 0);
    }
    subject_pass();
}
