/* A child with PDEATHSIG gets its signal when its parent dies after the restore, and not before. */
#include "subject.h"

static volatile int deaths;

static void on_death(int signal)
{
    (void)signal;
    deaths++;
}

static void child(void *argument)
{
    struct sigaction action = {.sa_handler = on_death};
    SYS(sigaction(SIGUSR1, &action, NULL));
    SYS(prctl(PR_SET_PDEATHSIG, SIGUSR1));
    (void)argument;
    member_hold("child");
    int value;
    SYS(prctl(PR_GET_PDEATHSIG, &value));
    CHECK_EQ(value, SIGUSR1);
    CHECK_EQ(deaths, 0);
    publish("child-is-fine", "");
    await_that(deaths == 1);
}

static void middle(void *unused)
{
    (void)unused;
    fork_member(child, NULL);
    await_member("child");
    member_hold("middle");
    await_that(access(in_dir("child-is-fine"), F_OK) == 0);
    _exit(0); /* leaves its child behind */
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    SYS(prctl(PR_SET_CHILD_SUBREAPER, 1));
    pid_t pid = fork_member(middle, NULL);
    await_member("middle");
    subject_hold();
    reap(pid);
    int status;
    SYS(wait(&status)); /* the grandchild, ours now */
    CHECK_EQ(status, 0);
    subject_pass();
}
