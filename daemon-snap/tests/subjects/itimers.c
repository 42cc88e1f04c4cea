/* Interval timers keep remaining time and interval, and go off afterwards. */
#include "subject.h"
#include <sys/time.h>

static volatile int alarms, virtual_alarms, prof_alarms;

static void on_timer(int signal)
{
    if (signal == SIGALRM)
        alarms++;
    else if (signal == SIGVTALRM)
        virtual_alarms++;
    else
        prof_alarms++;
}

static int64_t us(struct timeval tv)
{
    return tv.tv_sec * 1000000LL + tv.tv_usec;
}

/* Between what it was and what it was less the time since. */
static void check_timer(int which, struct itimerval before, int64_t elapsed_us)
{
    struct itimerval now;
    SYS(getitimer(which, &now));
    CHECK_EQ(us(now.it_interval), us(before.it_interval));
    CHECK(us(now.it_value) <= us(before.it_value) + 10000 && us(now.it_value) >= us(before.it_value) - elapsed_us,
          "timer %d has %ld us left, had %ld, %ld us ago", which, (long)us(now.it_value), (long)us(before.it_value),
          (long)elapsed_us);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sigaction action = {.sa_handler = on_timer, .sa_flags = SA_RESTART};
    SYS(sigaction(SIGALRM, &action, NULL));
    SYS(sigaction(SIGVTALRM, &action, NULL));
    SYS(sigaction(SIGPROF, &action, NULL));
    struct itimerval real = {{7, 250000}, {1000, 0}}, virtual = {{3, 0}, {500, 0}}, prof = {{0, 0}, {300, 123000}};
    SYS(setitimer(ITIMER_REAL, &real, NULL));
    SYS(setitimer(ITIMER_VIRTUAL, &virtual, NULL));
    SYS(setitimer(ITIMER_PROF, &prof, NULL));
    int64_t start = now_ns(CLOCK_MONOTONIC);
    subject_hold();
    int64_t elapsed = (now_ns(CLOCK_MONOTONIC) - start) / 1000 + 20000;
    check_timer(ITIMER_REAL, real, elapsed);
    check_timer(ITIMER_VIRTUAL, virtual, elapsed);
    check_timer(ITIMER_PROF, prof, elapsed);
    CHECK_EQ(alarms + virtual_alarms + prof_alarms, 0);
    struct itimerval soon = {{0, 5000}, {0, 5000}};
    SYS(setitimer(ITIMER_REAL, &soon, NULL));
    await_that(alarms >= 3);
    subject_pass();
}
