/* Parent and child that inherited a descriptor move one offset; what the child opened itself is its own. */
#include "subject.h"

static int inherited;

static void child(void *unused)
{
    (void)unused;
    int own = SYS(open(in_dir("data"), O_RDWR | O_CLOEXEC));
    SYS(lseek(own, 2, SEEK_SET));
    SYS(dup2(inherited, 50));
    SYS(close(inherited));
    member_hold("child");
    CHECK_EQ(lseek(50, 0, SEEK_CUR), 3);
    SYS(lseek(50, 7, SEEK_SET));
    CHECK_EQ(lseek(own, 0, SEEK_CUR), 2);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    write_file(in_dir("data"), "0123456789", 10);
    inherited = SYS(open(in_dir("data"), O_RDWR | O_CLOEXEC));
    SYS(lseek(inherited, 3, SEEK_SET));
    pid_t pid = fork_member(child, NULL);
    await_member("child");
    subject_hold();
    reap(pid);
    CHECK_EQ(lseek(inherited, 0, SEEK_CUR), 7);
    subject_pass();
}
