/* F_SETOWN, F_SETSIG and O_ASYNC: the chosen thread gets the chosen signal when bytes arrive. */
#include "subject.h"
#include <sys/socket.h>

static volatile int signal_fd, signal_band;
static volatile pid_t signal_tid;

static void on_io(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    signal_band = info->si_band;
    signal_fd = info->si_fd;
    signal_tid = thread_id();
}

static pid_t other;

static void *body(void *unused)
{
    other = thread_id();
    thread_hold();
    return unused;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sigaction action = {.sa_sigaction = on_io, .sa_flags = SA_SIGINFO | SA_RESTART};
    SYS(sigaction(SIGRTMIN + 6, &action, NULL));
    pthread_t thread = start_thread(body, NULL);
    await_threads(1);
    int ends[2];
    SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
    struct f_owner_ex owner = {F_OWNER_TID, other}, seen;
    SYS(fcntl(ends[0], F_SETOWN_EX, &owner));
    SYS(fcntl(ends[0], F_SETSIG, SIGRTMIN + 6));
    SYS(fcntl(ends[0], F_SETFL, O_RDWR | O_ASYNC));
    int group[2];
    SYS(pipe2(group, O_CLOEXEC));
    SYS(fcntl(group[0], F_SETOWN, -getpgrp()));
    subject_hold();
    SYS(fcntl(ends[0], F_GETOWN_EX, &seen));
    CHECK_EQ(seen.type, F_OWNER_TID);
    CHECK_EQ(seen.pid, other);
    CHECK_EQ(fcntl(ends[0], F_GETSIG), SIGRTMIN + 6);
    SYS(fcntl(group[0], F_GETOWN_EX, &seen));
    CHECK_EQ(seen.type, F_OWNER_PGRP);
    CHECK_EQ(seen.pid, getpgrp());
    SYS(write(ends[1], "x", 1));
    await_that(signal_tid != 0);
    CHECK_EQ(signal_fd, ends[0]);
    CHECK_EQ(signal_tid, other);
    release_threads();
    PTHREAD(pthread_join(thread, NULL));
    subject_pass();
}
