/* Blocked signals wait in the queues of process and threads: same order, same siginfo. */
#include "subject.h"

static sigset_t blocked;
static pid_t tids[2];

static void queue_to(pid_t tid, int signal, int value)
{
    siginfo_t info = {.si_code = SI_QUEUE};
    info.si_signo = signal;
    info.si_pid = 4242;
    info.si_uid = 77;
    info.si_value.sival_int = value;
    if (tid)
        SYS(syscall(SYS_rt_tgsigqueueinfo, getpid(), tid, signal, &info));
    else
        SYS(syscall(SYS_rt_sigqueueinfo, getpid(), signal, &info));
}

static void take(int signal, int code, int pid, int value)
{
    siginfo_t info;
    struct timespec none = {0, 0};
    int got = sigtimedwait(&blocked, &info, &none);
    CHECK(got == signal, "sigtimedwait gave %d (%s), wanted signal %d value %d", got, strerror(errno), signal, value);
    CHECK_EQ(info.si_signo, signal);
    CHECK_EQ(info.si_code, code);
    CHECK_EQ(info.si_pid, pid);
    if (code == SI_QUEUE) {
        CHECK_EQ(info.si_uid, 77);
        CHECK_EQ(info.si_value.sival_int, value);
    }
}

static void take_none(void)
{
    struct timespec none = {0, 0};
    int got = sigtimedwait(&blocked, NULL, &none);
    CHECK(got < 0, "one signal too many: %d", got);
}

static void *body(void *argument)
{
    long index = (long)argument;
    tids[index] = thread_id();
    thread_hold();
    take(SIGUSR1, SI_QUEUE, 4242, 100 + index);
    take(SIGRTMIN + 1, SI_QUEUE, 4242, 200 + index);
    take(SIGRTMIN + 1, SI_QUEUE, 4242, 210 + index);
    if (index == 1)
        return NULL;
    /* nobody has taken those of the process yet */
    take(SIGHUP, SI_USER, getpid(), 0);
    take(SIGUSR2, SI_QUEUE, 4242, 5);
    for (int i = 0; i < 5; i++)
        take(SIGRTMIN + 3, SI_QUEUE, 4242, i);
    take(SIGRTMIN + 4, SI_QUEUE, 4242, -1);
    take_none();
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    sigfillset(&blocked);
    for (int signal = SIGILL; signal <= SIGSEGV; signal++)
        if (signal != SIGUSR1)
            sigdelset(&blocked, signal);
    PTHREAD(pthread_sigmask(SIG_BLOCK, &blocked, NULL));
    pthread_t threads[2];
    for (long i = 0; i < 2; i++)
        threads[i] = start_thread(body, (void *)i);
    await_threads(2);
    for (int i = 0; i < 2; i++) {
        queue_to(tids[i], SIGRTMIN + 1, 200 + i);
        queue_to(tids[i], SIGUSR1, 100 + i);
        queue_to(tids[i], SIGRTMIN + 1, 210 + i);
    }
    queue_to(0, SIGRTMIN + 4, -1);
    for (int i = 0; i < 5; i++)
        queue_to(0, SIGRTMIN + 3, i);
    queue_to(0, SIGUSR2, 5);
    SYS(kill(getpid(), SIGHUP));
    SYS(kill(getpid(), SIGHUP)); /* a standard signal is pending once */
    subject_hold();
    release_threads();
    PTHREAD(pthread_join(threads[1], NULL));
    PTHREAD(pthread_join(threads[0], NULL));
    take_none();
    subject_pass();
}
