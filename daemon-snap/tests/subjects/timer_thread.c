/* libc's SIGEV_THREAD timers call their function in a thread before and after. */
#include "subject.h"

static atomic_int calls;
static volatile int value_seen;

static void on_timer(union sigval value)
{
    value_seen = value.sival_int;
    atomic_fetch_add(&calls, 1);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    timer_t timer, later;
    struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_value.sival_int = 17};
    event.sigev_notify_function = on_timer;
    SYS(timer_create(CLOCK_MONOTONIC, &event, &timer));
    SYS(timer_create(CLOCK_MONOTONIC, &event, &later));
    struct itimerspec soon = {{0, 0}, {0, 1000000}}, interval = {{0, 5000000}, {0, 5000000}};
    SYS(timer_settime(timer, 0, &soon, NULL));
    await_that(atomic_load(&calls) == 1);
    nap_ms(5);
    struct itimerspec far = {{0, 5000000}, {500, 0}};
    SYS(timer_settime(later, 0, &far, NULL));
    subject_hold();
    SYS(timer_settime(later, 0, &interval, NULL));
    await_that(atomic_load(&calls) >= 4);
    CHECK_EQ(value_seen, 17);
    subject_pass();
}
