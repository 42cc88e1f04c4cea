/* POSIX timers: id, clock, kind of notification, value, remaining time and interval; a deleted number stays free. */
#include "subject.h"

#define SIGEV_TID 4
struct kernel_sigevent {
    union sigval value;
    int signal, notify, tid, pad[11];
};

static volatile int values[8], handled_in[8];

static void on_timer(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    int index = info->si_value.sival_int & 7;
    values[index] = info->si_value.sival_int;
    handled_in[index] = thread_id();
}

static int create(clockid_t clock, int notify, int signal, int value, pid_t tid)
{
    struct kernel_sigevent event = {.value.sival_int = value, .signal = signal, .notify = notify, .tid = tid};
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

static void check_timer(int id, int64_t value_ns, int64_t interval_ns, int64_t elapsed_ns)
{
    struct itimerspec now;
    SYS(syscall(SYS_timer_gettime, id, &now));
    int64_t left = now.it_value.tv_sec * NS_PER_S + now.it_value.tv_nsec;
    CHECK_EQ(now.it_interval.tv_sec * NS_PER_S + now.it_interval.tv_nsec, interval_ns);
    if (value_ns == 0)
        CHECK_EQ(left, 0);
    else
        CHECK(left <= value_ns + 5 * NS_PER_MS && left >= value_ns - elapsed_ns,
              "timer %d has %ld ns left, had %ld, %ld ns ago", id, (long)left, (long)value_ns, (long)elapsed_ns);
}

static pid_t other_tid;

static void *body(void *unused)
{
    other_tid = thread_id();
    thread_hold();
    return unused;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sigaction action = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO | SA_RESTART};
    SYS(sigaction(SIGRTMIN + 1, &action, NULL));
    pthread_t thread = start_thread(body, NULL);
    await_threads(1);
    int process = create(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN + 1, 0x1230, 0);
    int gap = create(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0, 0);
    int to_thread = create(CLOCK_REALTIME, SIGEV_TID, SIGRTMIN + 1, 0x4561, other_tid);
    int silent = create(CLOCK_BOOTTIME, SIGEV_NONE, 0, 7, 0);
    int disarmed = create(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN + 1, 0x7892, 0);
    int cpu = create(CLOCK_PROCESS_CPUTIME_ID, SIGEV_SIGNAL, SIGRTMIN + 1, 0x7893, 0);
    SYS(syscall(SYS_timer_delete, gap));
    set(process, 900 * NS_PER_S, 3 * NS_PER_S + 1);
    set(to_thread, 800 * NS_PER_S, 0);
    set(silent, 700 * NS_PER_S, 5 * NS_PER_S);
    set(cpu, 600 * NS_PER_S, 0);
    int64_t start = now_ns(CLOCK_MONOTONIC);
    subject_hold();

    int64_t elapsed = now_ns(CLOCK_MONOTONIC) - start + 20 * NS_PER_MS;
    check_timer(process, 900 * NS_PER_S, 3 * NS_PER_S + 1, elapsed);
    check_timer(to_thread, 800 * NS_PER_S, 0, elapsed);
    check_timer(silent, 700 * NS_PER_S, 5 * NS_PER_S, elapsed);
    check_timer(disarmed, 0, 0, elapsed);
    check_timer(cpu, 600 * NS_PER_S, 0, elapsed);
    struct itimerspec none;
    CHECK(syscall(SYS_timer_gettime, gap, &none) < 0 && errno == EINVAL, "the deleted timer is back");
    set(process, NS_PER_MS, 0);
    set(to_thread, NS_PER_MS, 0);
    set(disarmed, NS_PER_MS, 0);
    await_that(values[0] && values[1] && values[2]);
    CHECK_EQ(values[0], 0x1230);
    CHECK_EQ(values[1], 0x4561);
    CHECK_EQ(values[2], 0x7892);
    CHECK_EQ(handled_in[1], other_tid);
    CHECK(values[3] == 0, "the timer on CPU time went off");
    int fresh = create(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0, 0);
    CHECK(fresh != process && fresh != to_thread && fresh != silent && fresh != cpu, "id %d is in use", fresh);
    release_threads();
    PTHREAD(pthread_join(thread, NULL));
    subject_pass();
}
