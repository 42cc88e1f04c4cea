/* Duplicates are one open file description, a second open of the same file is not; with kcmp and with offsets. */
#include "subject.h"
#include <linux/kcmp.h>

static bool same(int a, int b)
{
    return SYS(syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, a, b)) == 0;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    write_file(in_dir("data"), "0123456789", 10);
    int first = SYS(open(in_dir("data"), O_RDWR));
    int second = SYS(dup3(first, 77, O_CLOEXEC));
    int other = SYS(open(in_dir("data"), O_RDWR));
    int pipes[2];
    SYS(pipe2(pipes, O_NONBLOCK));
    int writer = SYS(dup(pipes[1]));
    subject_hold();
    CHECK(same(first, second), "the duplicate became a description of its own");
    CHECK(!same(first, other), "two opens became one description");
    CHECK(same(1, 2), "stdout and stderr were one description");
    CHECK(same(pipes[1], writer) && !same(pipes[0], pipes[1]), "ends of the pipe are mixed up");
    SYS(lseek(first, 4, SEEK_SET));
    CHECK_EQ(lseek(second, 0, SEEK_CUR), 4);
    CHECK_EQ(lseek(other, 0, SEEK_CUR), 0);
    SYS(fcntl(second, F_SETFL, O_APPEND));
    CHECK(fcntl(first, F_GETFL) & O_APPEND, "status flags are not shared");
    CHECK_EQ(fcntl(second, F_GETFD), FD_CLOEXEC);
    CHECK_EQ(fcntl(first, F_GETFD), 0);
    subject_pass();
}
