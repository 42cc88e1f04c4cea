/* Each thread keeps its mask, and a signal for the process goes to the one thread that does not block it. */
#include "subject.h"

static volatile pid_t handled_by;
static pid_t open_thread;

static void on_usr1(int signal)
{
    (void)signal;
    handled_by = thread_id();
}

static void *body(void *argument)
{
    uint64_t bits = (uint64_t)argument;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &bits, NULL, 8);
    if (!(bits & 1ul << (SIGUSR1 - 1)))
        open_thread = thread_id();
    thread_hold();
    uint64_t seen = 0;
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &seen, 8);
    CHECK_EQ(seen, bits);
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sigaction action = {.sa_handler = on_usr1};
    SYS(sigaction(SIGUSR1, &action, NULL));
    uint64_t usr1 = 1ul << (SIGUSR1 - 1);
    uint64_t masks[4] = {usr1 | 1ul << 63, usr1 | 1ul << (SIGTERM - 1), 1ul << (SIGUSR2 - 1) | 1ul << 40, usr1};
    pthread_t threads[4];
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, &usr1, NULL, 8);
    for (int i = 0; i < 4; i++)
        threads[i] = start_thread(body, (void *)masks[i]);
    await_threads(4);
    subject_hold();
    SYS(kill(getpid(), SIGUSR1));
    await_that(handled_by != 0);
    CHECK_EQ(handled_by, open_thread);
    release_threads();
    for (int i = 0; i < 4; i++)
        PTHREAD(pthread_join(threads[i], NULL));
    subject_pass();
}
