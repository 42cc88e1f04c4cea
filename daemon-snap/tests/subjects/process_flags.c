/* Variants: one attribute of the process each, set before and read back after, by the kernel's own answer or effect. */
#include "subject.h"
#include <sys/personality.h>
#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_GET_MDWE 66
#endif

static volatile int child_ended;

static void on_child(int signal)
{
    (void)signal;
    child_ended++;
}

static void check_mdwe(void)
{
    void *page = SYS(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    CHECK(mprotect(page, 4096, PROT_READ | PROT_EXEC) < 0 && errno == EACCES, "written memory can become code");
    CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED,
          "memory can be code and writable");
    CHECK_EQ(prctl(PR_GET_MDWE, 0, 0, 0, 0), 1);
}

/* An orphan of a child must become ours. */
static void check_subreaper(void)
{
    struct sigaction action = {.sa_handler = on_child, .sa_flags = SA_RESTART};
    SYS(sigaction(SIGCHLD, &action, NULL));
    pid_t self = getpid(), child = SYS(fork());
    if (child == 0) {
        if (fork() == 0)
            await_that(getppid() == self);
        _exit(0);
    }
    reap(child);
    int status;
    pid_t orphan = SYS(wait(&status));
    CHECK(orphan != child && status == 0, "the orphan ended with status 0x%x", status);
    CHECK(child_ended >= 1, "no SIGCHLD");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int slack = 123456, value = 0;
    if (variant("dumpable"))
        SYS(prctl(PR_SET_DUMPABLE, 0));
    else if (variant("no_new_privs"))
        SYS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    else if (variant("mdwe")) {
        if (prctl(PR_SET_MDWE, 1, 0, 0, 0) < 0)
            subject_skip("no PR_SET_MDWE before Linux 6.3");
    } else if (variant("pdeathsig"))
        SYS(prctl(PR_SET_PDEATHSIG, SIGUSR2));
    else if (variant("subreaper"))
        SYS(prctl(PR_SET_CHILD_SUBREAPER, 1));
    else if (variant("timer_slack"))
        SYS(prctl(PR_SET_TIMERSLACK, slack));
    else if (variant("personality"))
        SYS(personality(ADDR_NO_RANDOMIZE | READ_IMPLIES_EXEC));
    else if (variant("thp_disable"))
        SYS(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
    else
        CHECK(false, "no variant %s", subject_variant);
    subject_hold();
    if (variant("dumpable"))
        CHECK_EQ(prctl(PR_GET_DUMPABLE), 0);
    else if (variant("no_new_privs"))
        CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
    else if (variant("mdwe"))
        check_mdwe();
    else if (variant("pdeathsig")) {
        SYS(prctl(PR_GET_PDEATHSIG, &value));
        CHECK_EQ(value, SIGUSR2);
    } else if (variant("subreaper")) {
        SYS(prctl(PR_GET_CHILD_SUBREAPER, &value));
        CHECK_EQ(value, 1);
        check_subreaper();
    } else if (variant("timer_slack"))
        CHECK_EQ(SYS(prctl(PR_GET_TIMERSLACK)), slack);
    else if (variant("personality"))
        CHECK_EQ(SYS(personality(0xffffffff)), ADDR_NO_RANDOMIZE | READ_IMPLIES_EXEC);
    else
        CHECK_EQ(SYS(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0)), 1);
    subject_pass();
}
