/* A short interval timer that runs across dump and restore goes on firing. */
#include "subject.h"
#include <sys/time.h>

static volatile int alarms;

static void on_alarm(int signal)
{
    (void)signal;
    alarms++;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    SYS(sigaction(SIGALRM, &action, NULL));
    struct itimerval timer = {{0, 20000}, {0, 20000}}, now;
    SYS(setitimer(ITIMER_REAL, &timer, NULL));
    subject_hold();
    int before = alarms;
    await_that(alarms >= before + 3);
    SYS(getitimer(ITIMER_REAL, &now));
    CHECK_EQ(now.it_interval.tv_usec, 20000);
    subject_pass();
}
