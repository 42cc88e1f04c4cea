/* A periodic timer whose signal is blocked has the signal pending once, and counts what it missed. */
#include "subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGRTMIN + 5);
    PTHREAD(pthread_sigmask(SIG_BLOCK, &mask, NULL));
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 5, .sigev_value.sival_int = 9};
    SYS(timer_create(CLOCK_MONOTONIC, &event, &timer));
    struct itimerspec spec = {{0, 2000000}, {0, 2000000}};
    SYS(timer_settime(timer, 0, &spec, NULL));
    nap_ms(20);
    subject_hold();
    siginfo_t info;
    struct timespec limit = {2, 0};
    for (int round = 0; round < 3; round++) {
        SYS(sigtimedwait(&mask, &info, &limit));
        CHECK_EQ(info.si_code, SI_TIMER);
        CHECK_EQ(info.si_value.sival_int, 9);
        CHECK(info.si_overrun >= 0 && info.si_overrun < 100000, "overrun is %d", info.si_overrun);
        CHECK_EQ(timer_getoverrun(timer), info.si_overrun);
    }
    subject_pass();
}
