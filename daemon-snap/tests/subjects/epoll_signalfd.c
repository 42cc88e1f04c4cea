/* A signalfd in an epoll set wakes whoever waits for the set: the kernel notes with the watch whose signals it is about. */
#include "subject.h"
#include <sys/epoll.h>
#include <sys/signalfd.h>

static void check_woken(int epoll, int fd, unsigned long data)
{
    struct epoll_event event;
    struct signalfd_siginfo info;
    CHECK_EQ(epoll_wait(epoll, &event, 1, 0), 0);
    SYS(kill(getpid(), SIGUSR1));
    CHECK_EQ(epoll_wait(epoll, &event, 1, 2000), 1);
    CHECK_EQ(event.data.u64, data);
    CHECK_EQ(read(fd, &info, sizeof info), (long)sizeof info);
    CHECK_EQ(info.ssi_signo, SIGUSR1);
}

static int watched(int *fd, unsigned long data)
{
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    SYS(sigprocmask(SIG_BLOCK, &mask, NULL));
    *fd = SYS(signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
    int epoll = SYS(epoll_create1(EPOLL_CLOEXEC));
    struct epoll_event event = {EPOLLIN, {.u64 = data}};
    SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, *fd, &event));
    return epoll;
}

static void child(void *argument)
{
    (void)argument;
    int fd, epoll = watched(&fd, 8);
    check_woken(epoll, fd, 8);
    member_hold("child");
    check_woken(epoll, fd, 8);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pid_t pid = fork_member(child, NULL);
    await_member("child");
    int fd, epoll = watched(&fd, 7);
    check_woken(epoll, fd, 7);
    subject_hold();
    check_woken(epoll, fd, 7);
    reap(pid);
    subject_pass();
}
