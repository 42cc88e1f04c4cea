/* A grandchild in the root's session under a child with its own, and a group that spans two parents. */
#include "subject.h"

static pid_t shared_group;

static void member(void *argument)
{
    pid_t sid = getsid(0);
    SYS(setpgid(0, shared_group));
    member_hold(argument);
    CHECK_EQ(getsid(0), sid);
    CHECK_EQ(getpgrp(), shared_group);
}

static void branch(void *argument)
{
    char name[32];
    pid_t kid = fork_member(member, argument); /* before setsid: stays in the root's session */
    await_member(argument);
    SYS(setsid());
    snprintf(name, sizeof name, "branch-%s", (char *)argument);
    member_hold(name);
    CHECK_EQ(getsid(0), getpid());
    reap(kid);
}

static void group_leader(void *unused)
{
    (void)unused;
    SYS(setpgid(0, 0));
    shared_group = getpid();
    member("leader");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pid_t leader = shared_group = fork_member(group_leader, NULL);
    await_member("leader");
    pid_t a = fork_member(branch, "a"), b = fork_member(branch, "b");
    await_member("branch-a");
    await_member("branch-b");
    subject_hold();
    reap(a), reap(b), reap(leader);
    subject_pass();
}
