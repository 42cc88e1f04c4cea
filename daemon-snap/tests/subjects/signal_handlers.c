/* Handlers run with the mask and the flags they were installed with; ignored signals stay ignored. */
#include "subject.h"

static volatile int calls, mask_was_right, got_value, nested;

static void on_info(int signal, siginfo_t *info, void *context)
{
    sigset_t now;
    (void)context;
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    mask_was_right = sigismember(&now, SIGTERM) && sigismember(&now, SIGRTMAX) && sigismember(&now, signal) &&
                     !sigismember(&now, SIGHUP);
    got_value = info->si_value.sival_int;
    calls++;
}

static void on_nodefer(int signal)
{
    if (nested++ == 0)
        raise(signal);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sigaction action = {.sa_sigaction = on_info, .sa_flags = SA_SIGINFO | SA_RESTART}, seen;
    sigaddset(&action.sa_mask, SIGTERM);
    sigaddset(&action.sa_mask, SIGRTMAX);
    SYS(sigaction(SIGRTMIN + 2, &action, NULL));
    struct sigaction nodefer = {.sa_handler = on_nodefer, .sa_flags = SA_NODEFER | SA_RESETHAND};
    SYS(sigaction(SIGUSR1, &nodefer, NULL));
    struct sigaction child = {.sa_handler = on_nodefer, .sa_flags = SA_NOCLDSTOP | SA_NOCLDWAIT};
    SYS(sigaction(SIGCHLD, &child, NULL));
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    subject_hold();

    union sigval value = {.sival_int = 31};
    SYS(sigqueue(getpid(), SIGRTMIN + 2, value));
    CHECK_EQ(calls, 1);
    CHECK_EQ(got_value, 31);
    CHECK(mask_was_right, "the mask inside the handler is not sa_mask plus the signal");
    SYS(sigaction(SIGUSR1, NULL, &seen));
    CHECK_EQ(seen.sa_flags & (SA_NODEFER | SA_RESETHAND | SA_RESTART), SA_NODEFER | SA_RESETHAND);
    SYS(sigaction(SIGCHLD, NULL, &seen));
    CHECK_EQ(seen.sa_flags & (SA_NOCLDSTOP | SA_NOCLDWAIT), SA_NOCLDSTOP | SA_NOCLDWAIT);
    SYS(kill(getpid(), SIGHUP));
    SYS(kill(getpid(), SIGPIPE));
    struct sigaction plain = {.sa_handler = on_nodefer, .sa_flags = SA_NODEFER};
    nested = 1;
    SYS(kill(getpid(), SIGUSR1)); /* resets itself to the default */
    CHECK_EQ(nested, 2);
    SYS(sigaction(SIGUSR1, &plain, &seen));
    CHECK(seen.sa_handler == SIG_DFL, "SA_RESETHAND did not reset the handler");
    nested = 0;
    SYS(kill(getpid(), SIGUSR1)); /* nests in itself */
    CHECK_EQ(nested, 2);
    subject_pass();
}
