/* POSIX timers on CPU clocks: of the process, of a certain thread, of the only thread; overruns are counted while the signal waits. */
#include "subject.h"

#define SIGEV_TID 4
struct kernel_sigevent {
    union sigval value;
    int signal, notify, tid, pad[11];
};

static sigset_t mask;
static pid_t tids[2];
static clockid_t clocks[2];
static atomic_int burn[2], burnt[2];

static int create(clockid_t clock, int notify, int value, pid_t tid)
{
    struct kernel_sigevent event = {.value.sival_int = value, .signal = SIGRTMIN + 2, .notify = notify, .tid = tid};
    int id = -1;
    SYS(syscall(SYS_timer_create, clock, &event, &id));
    return id;
}

static void set(int id, int64_t value_ns, int64_t interval_ns)
{
    struct itimerspec spec = {{interval_ns / NS_PER_S, interval_ns % NS_PER_S},
                              {value_ns / NS_PER_S, value_ns % NS_PER_S}};
    SYS(syscall(SYS_timer_settime, id, 0, &spec, NULL));
}

static int64_t left(int id)
{
    struct itimerspec now;
    SYS(syscall(SYS_timer_gettime, id, &now));
    return now.it_value.tv_sec * NS_PER_S + now.it_value.tv_nsec;
}

static void work_ms(clockid_t clock, int ms)
{
    int64_t end = now_ns(clock) + ms * NS_PER_MS;
    while (now_ns(clock) < end)
        ;
}

static void *body(void *argument)
{
    long index = (long)argument;
    tids[index] = thread_id();
    PTHREAD(pthread_getcpuclockid(pthread_self(), &clocks[index]));
    atomic_fetch_add(&subject_arrived, 1);
    while (!atomic_load(&burn[index]))
        nap_ms(5);
    work_ms(CLOCK_THREAD_CPUTIME_ID, 60);
    atomic_store(&burnt[index], 1);
    /* a timer of a thread that has ended counts nothing */
    while (!atomic_load(&burn[1]))
        nap_ms(5);
    if (index == 1) {
        siginfo_t info;
        struct timespec limit = {5, 0};
        CHECK_EQ(SYS(sigtimedwait(&mask, &info, &limit)), SIGRTMIN + 2);
        CHECK_EQ(info.si_value.sival_int, 12);
        CHECK_EQ(info.si_code, SI_TIMER);
    }
    return NULL;
}

static void take(int value, int least_overrun)
{
    siginfo_t info;
    struct timespec limit = {5, 0};
    CHECK_EQ(SYS(sigtimedwait(&mask, &info, &limit)), SIGRTMIN + 2);
    CHECK_EQ(info.si_value.sival_int, value);
    CHECK(info.si_overrun >= least_overrun, "timer %d has %d overruns", value, info.si_overrun);
}

static bool none_pending(void)
{
    struct timespec now = {0, 0};
    return sigtimedwait(&mask, NULL, &now) < 0 && errno == EAGAIN;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    sigemptyset(&mask);
    sigaddset(&mask, SIGRTMIN + 2);
    PTHREAD(pthread_sigmask(SIG_BLOCK, &mask, NULL));
    if (variant("single")) {
        int own = create(CLOCK_THREAD_CPUTIME_ID, 0, 1, 0);
        set(own, NS_PER_S / 2, 0);
        int64_t before = left(own);
        subject_hold();
        CHECK(left(own) <= before && left(own) > before - 300 * NS_PER_MS, "%ld ns left", (long)left(own));
        CHECK(none_pending(), "the timer went off");
        set(own, 20 * NS_PER_MS, 5 * NS_PER_MS);
        work_ms(CLOCK_THREAD_CPUTIME_ID, 80);
        take(1, 1);
        subject_pass();
    }
    pthread_t threads[2];
    for (long i = 0; i < 2; i++)
        threads[i] = start_thread(body, (void *)i);
    await_threads(2);
    int of_first = create(clocks[0], 0, 11, 0), of_second = create(clocks[1], SIGEV_TID, 12, tids[1]);
    int of_process = create(CLOCK_PROCESS_CPUTIME_ID, 0, 13, 0);
    set(of_first, 40 * NS_PER_MS, 5 * NS_PER_MS);
    set(of_second, 50 * NS_PER_MS, 0);
    set(of_process, 500 * NS_PER_S, 0);
    subject_hold();
    CHECK(left(of_first) > 20 * NS_PER_MS && left(of_first) <= 40 * NS_PER_MS, "%ld ns left", (long)left(of_first));
    CHECK(left(of_second) > 20 * NS_PER_MS && left(of_second) <= 50 * NS_PER_MS, "%ld ns left", (long)left(of_second));
    CHECK(left(of_process) > 400 * NS_PER_S, "%ld ns left", (long)left(of_process));
    work_ms(CLOCK_THREAD_CPUTIME_ID, 100); /* is nobody's time but the process's */
    CHECK(none_pending(), "the time of the main thread counts for another");
    atomic_store(&burn[0], 1);
    await_that(atomic_load(&burnt[0]));
    take(11, 1);
    atomic_store(&burn[1], 1);
    for (int i = 0; i < 2; i++)
        PTHREAD(pthread_join(threads[i], NULL));
    CHECK_EQ(atomic_load(&burnt[1]), 1);
    subject_pass();
}
