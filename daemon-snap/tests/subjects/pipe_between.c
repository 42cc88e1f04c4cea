/* Pipes between parent, child and grandchild carry bytes both ways afterwards; ends that were closed stay closed. */
#include "subject.h"

static int down[2], up[2];

static void grandchild(void *unused)
{
    (void)unused;
    char byte = 0;
    close(down[1]), close(up[0]);
    member_hold("grandchild");
    while (read(down[0], &byte, 1) == 1)
        SYS(write(up[1], (char[]){byte + 1}, 1));
}

static void child(void *unused)
{
    (void)unused;
    close(down[1]), close(up[0]);
    pid_t pid = fork_member(grandchild, NULL);
    close(down[0]), close(up[1]);
    member_hold("child");
    reap(pid);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    SYS(pipe2(down, O_CLOEXEC));
    SYS(pipe2(up, O_CLOEXEC));
    SYS(write(down[1], "ab", 2));
    pid_t pid = fork_member(child, NULL);
    close(down[0]), close(up[1]);
    await_member("child");
    await_member("grandchild");
    subject_hold();
    char byte;
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(read(up[0], &byte, 1), 1);
        CHECK_EQ(byte, "bc"[i]);
    }
    SYS(write(down[1], "x", 1));
    CHECK_EQ(read(up[0], &byte, 1), 1);
    CHECK_EQ(byte, 'y');
    close(down[1]);
    CHECK_EQ(read(up[0], &byte, 1), 0); /* the grandchild saw the end of file */
    reap(pid);
    subject_pass();
}
