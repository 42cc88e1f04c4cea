/* signalfd keeps its mask, gives signals that were pending and those that come later, and can be changed. */
#include "subject.h"
#include <sys/signalfd.h>

static void expect(int fd, int signal, int value)
{
    struct signalfd_siginfo info;
    CHECK_EQ(read(fd, &info, sizeof info), sizeof info);
    CHECK_EQ(info.ssi_signo, signal);
    CHECK_EQ(info.ssi_int, value);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    sigset_t mask, narrow;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGRTMIN + 2);
    sigaddset(&mask, SIGRTMAX);
    PTHREAD(pthread_sigmask(SIG_BLOCK, &mask, NULL));
    sigemptyset(&narrow);
    sigaddset(&narrow, SIGTERM);
    int all = SYS(signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC));
    int term = SYS(signalfd(-1, &narrow, SFD_NONBLOCK));
    union sigval one = {.sival_int = 1}, two = {.sival_int = 2};
    SYS(sigqueue(getpid(), SIGRTMIN + 2, one));
    SYS(sigqueue(getpid(), SIGRTMIN + 2, two));
    subject_hold();
    struct signalfd_siginfo info;
    CHECK(read(term, &info, sizeof info) < 0 && errno == EAGAIN, "a signal outside the mask");
    expect(all, SIGRTMIN + 2, 1);
    expect(all, SIGRTMIN + 2, 2);
    CHECK(read(all, &info, sizeof info) < 0 && errno == EAGAIN, "a signal too many");
    SYS(sigqueue(getpid(), SIGRTMAX, two));
    expect(all, SIGRTMAX, 2);
    SYS(sigqueue(getpid(), SIGTERM, one));
    expect(term, SIGTERM, 1);
    SYS(signalfd(term, &mask, 0));
    SYS(sigqueue(getpid(), SIGUSR1, two));
    expect(term, SIGUSR1, 2);
    subject_pass();
}
