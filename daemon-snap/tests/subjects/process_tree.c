/* Three levels of processes with siblings: same ids, same parents, own memory each, and everybody can be waited for. */
#include "subject.h"

static volatile long value;
static pid_t expected_parent;

static void leaf(void *argument)
{
    char name[16];
    value = (long)argument;
    expected_parent = getppid();
    pid_t self = getpid();
    snprintf(name, sizeof name, "leaf%ld", (long)argument);
    member_hold(name);
    CHECK_EQ(value, (long)argument);
    CHECK_EQ(getpid(), self);
    CHECK_EQ(getppid(), expected_parent);
    CHECK_EQ(thread_id(), self);
}

static void branch(void *argument)
{
    long index = (long)argument;
    char name[16];
    pid_t kids[2];
    value = 100 + index;
    expected_parent = getppid();
    for (long i = 0; i < 2; i++)
        kids[i] = fork_member(leaf, (void *)(index * 10 + i));
    snprintf(name, sizeof name, "branch%ld", index);
    member_hold(name);
    CHECK_EQ(value, 100 + index);
    CHECK_EQ(getppid(), expected_parent);
    for (int i = 0; i < 2; i++)
        reap(kids[i]);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pid_t kids[2];
    for (long i = 0; i < 2; i++)
        kids[i] = fork_member(branch, (void *)i);
    for (int i = 0; i < 2; i++) {
        char name[16];
        snprintf(name, sizeof name, "branch%d", i);
        await_member(name);
        for (int j = 0; j < 2; j++) {
            snprintf(name, sizeof name, "leaf%d", i * 10 + j);
            await_member(name);
        }
    }
    value = 7;
    subject_hold();
    CHECK_EQ(value, 7);
    for (int i = 0; i < 2; i++)
        reap(kids[i]);
    CHECK(wait(NULL) < 0 && errno == ECHILD, "a child too many");
    pid_t fresh = SYS(fork());
    if (fresh == 0)
        _exit(0);
    reap(fresh);
    subject_pass();
}
