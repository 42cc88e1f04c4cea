/* POSIX timers for a thread that has ended: they run on, nobody hears of them, they can be looked at and deleted. */
#include "subject.h"

#ifndef SIGEV_THREAD_ID
#define SIGEV_THREAD_ID 4
#endif

static int timer;

static void *makes(void *unused)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
    event._sigev_un._tid = thread_id();
    SYS(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer));
    struct itimerspec often = {{0, 50 * NS_PER_MS}, {0, 50 * NS_PER_MS}};
    SYS(syscall(SYS_timer_settime, timer, 0, &often, NULL));
    return unused;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_t thread;
    PTHREAD(pthread_create(&thread, NULL, makes, NULL));
    PTHREAD(pthread_join(thread, NULL));
    nap_ms(120);
    subject_hold();
    nap_ms(120);
    struct itimerspec now;
    SYS(syscall(SYS_timer_gettime, timer, &now));
    CHECK_EQ(now.it_interval.tv_nsec, 50 * NS_PER_MS);
    SYS(syscall(SYS_timer_delete, timer));
    CHECK(syscall(SYS_timer_gettime, timer, &now) < 0 && errno == EINVAL, "the timer is still there");
    subject_pass();
}
