/* Variants: groups (several groups in one session), session (a child with a session of its own), dead_group (a group whose
 * leader has ended), dead_session (double fork: a session whose leader has ended). */
#include "subject.h"

static pid_t root;

static void check_place(pid_t sid, pid_t pgid)
{
    CHECK_EQ(getsid(0), sid);
    CHECK_EQ(getpgrp(), pgid);
}

static void plain_member(void *argument)
{
    pid_t sid = getsid(0), pgid = getpgrp();
    member_hold(argument);
    check_place(sid, pgid);
    if (strcmp(argument, "follower") == 0)
        SYS(kill(-pgid, 0)); /* the group has members */
}

static void own_group(void *argument)
{
    SYS(setpgid(0, 0));
    pid_t kid = fork_member(plain_member, "follower");
    await_member("follower");
    plain_member(argument);
    reap(kid);
}

static void own_session(void *argument)
{
    SYS(setsid());
    pid_t kid = fork_member(own_group, "inner");
    await_member("inner");
    plain_member(argument);
    reap(kid);
    CHECK_EQ(getsid(0), getpid());
}

/* Is taken in by the root once its parent has ended. */
static void orphaned_member(void *argument)
{
    await_that(getppid() == root);
    plain_member(argument);
}

/* Makes a group or session, leaves two members behind, and ends. */
static void dying_leader(void *argument)
{
    if (variant("dead_session"))
        SYS(setsid());
    else
        SYS(setpgid(0, 0));
    (void)argument;
    fork_member(orphaned_member, "follower");
    fork_member(orphaned_member, "other");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    SYS(prctl(PR_SET_CHILD_SUBREAPER, 1)); /* orphans stay in the tree */
    pid_t sid = root = getpid();
    pid_t kid = fork_member(variant("groups") ? own_group : variant("session") ? own_session : dying_leader, "leader");
    if (variant("dead_group") || variant("dead_session")) {
        reap(kid), kid = 0;
        await_member("follower");
        await_member("other");
    } else {
        await_member("leader");
    }
    subject_hold();
    check_place(sid, sid);
    for (int status, left = kid ? 1 : 2; left > 0; left--) {
        SYS(wait(&status));
        CHECK_EQ(status, 0);
    }
    if (kid) /* the number of the group is free again once all are gone */
        CHECK(kill(-kid, 0) < 0 && errno == ESRCH, "group %d still has members", kid);
    subject_pass();
}
