/* A child that ends afterwards sends SIGCHLD with its pid and status, by exit and by signal, and wait gives the same. */
#include "subject.h"

static volatile int signals, last_pid, last_status, last_code;

static void on_child(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    last_pid = info->si_pid;
    last_status = info->si_status;
    last_code = info->si_code;
    signals++;
}

static void exits(void *unused)
{
    (void)unused;
    member_hold("exits");
    _exit(23);
}

static void killed(void *unused)
{
    (void)unused;
    member_hold("killed");
    for (;;)
        pause();
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sigaction action = {.sa_sigaction = on_child, .sa_flags = SA_SIGINFO | SA_RESTART | SA_NOCLDSTOP};
    SYS(sigaction(SIGCHLD, &action, NULL));
    pid_t a = fork_member(exits, NULL), b = fork_member(killed, NULL);
    await_member("exits");
    await_member("killed");
    subject_hold();
    int status;
    await_that(signals == 1);
    CHECK_EQ(last_pid, a);
    CHECK_EQ(last_code, CLD_EXITED);
    CHECK_EQ(last_status, 23);
    CHECK_EQ(SYS(waitpid(a, &status, 0)), a);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 23, "status 0x%x", status);
    CHECK_EQ(waitpid(b, &status, WNOHANG), 0);
    SYS(kill(b, SIGKILL));
    await_that(signals == 2);
    CHECK_EQ(last_pid, b);
    CHECK_EQ(last_code, CLD_KILLED);
    CHECK_EQ(SYS(waitpid(b, &status, 0)), b);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status 0x%x", status);
    subject_pass();
}
