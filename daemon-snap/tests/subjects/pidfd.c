/* Descriptors of processes: of itself, of parent, child and sibling, of a zombie, of one that was waited for, of a thread; flags,
 * duplicates, numbers, epoll. */
#include "subject.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#define THREAD O_EXCL /* PIDFD_THREAD, since Linux 6.9 */

static int open_pidfd(pid_t pid, int flags)
{
    return SYS(syscall(SYS_pidfd_open, pid, flags));
}

static int events_of(int fd)
{
    struct pollfd poll_fd = {fd, POLLIN, 0};
    SYS(poll(&poll_fd, 1, 0));
    return poll_fd.revents;
}

/* The process that fdinfo names; -1 when it has been waited for. */
static int target_of(int fd)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    read_file(path, text, sizeof text);
    char *line = strstr(text, "\nPid:\t");
    CHECK(line, "fd %d is no pidfd: %s", fd, text);
    return atoi(line + 6);
}

static void send_signal(int fd, int signal)
{
    SYS(syscall(SYS_pidfd_send_signal, fd, signal, NULL, 0));
}

/* Wait status of one that was waited for, where the kernel tells it (since Linux 6.15). */
static int status_of(int fd)
{
    struct {
        uint64_t mask, cgroup;
        uint32_t ids[11];
        int32_t status;
    } info = {.mask = 8};
    if (ioctl(fd, _IOWR(0xff, 11, info), &info) < 0 || !(info.mask & 8))
        return -1;
    return info.status;
}

static void exits(void *status)
{
    _exit((long)status);
}

static void waits(void *unused)
{
    (void)unused;
    member_hold("waits");
    for (;;)
        pause();
}

static int inherited, parent_fd;

/* Has one description in common with the root, and one of the root of its own. */
static void looks(void *unused)
{
    (void)unused;
    parent_fd = open_pidfd(getppid(), 0);
    SYS(dup3(parent_fd, 77, 0));
    close(parent_fd);
    member_hold("looks");
    CHECK_EQ(target_of(77), getppid());
    CHECK_EQ(SYS(fcntl(77, F_GETFD)), 0);
    CHECK_EQ(target_of(inherited), getppid());
    send_signal(77, SIGUSR1);
    _exit(0);
}

static volatile sig_atomic_t signals;

static void on_signal(int signal)
{
    (void)signal;
    signals++;
}

static void check_tree(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    SYS(sigaction(SIGUSR1, &action, NULL));
    inherited = open_pidfd(getpid(), 0);
    pid_t looking = fork_member(looks, NULL), waiting = fork_member(waits, NULL);
    pid_t zombie = fork_member(exits, (void *)33), reaped = fork_member(exits, (void *)44);
    pid_t killed = SYS(fork());
    if (killed == 0)
        for (;;)
            pause();
    await_member("looks");
    await_member("waits");
    int of_child = open_pidfd(waiting, O_NONBLOCK), of_zombie = open_pidfd(zombie, 0);
    int of_reaped = open_pidfd(reaped, 0), of_killed = open_pidfd(killed, O_NONBLOCK);
    SYS(dup3(of_child, 40, O_CLOEXEC));
    close(of_child);
    of_child = 40;
    int twin = SYS(fcntl(of_child, F_DUPFD_CLOEXEC, 100)), other = open_pidfd(waiting, 0);
    SYS(fcntl(other, F_SETFD, 0));
    siginfo_t info;
    SYS(waitid(P_PID, zombie, &info, WEXITED | WNOWAIT));
    int status;
    CHECK_EQ(SYS(waitpid(reaped, &status, 0)), reaped);
    SYS(kill(killed, SIGTERM));
    CHECK_EQ(SYS(waitpid(killed, &status, 0)), killed);
    int reaped_events = events_of(of_reaped), reaped_status = status_of(of_reaped);
    int killed_status = status_of(of_killed);
    subject_hold();

    CHECK_EQ(target_of(inherited), getpid());
    CHECK_EQ(target_of(of_child), waiting);
    CHECK_EQ(target_of(other), waiting);
    CHECK_EQ(target_of(of_zombie), zombie);
    CHECK_EQ(target_of(of_reaped), -1);
    CHECK_EQ(target_of(of_killed), -1);
    CHECK_EQ(SYS(fcntl(of_child, F_GETFL)) & O_NONBLOCK, O_NONBLOCK);
    CHECK_EQ(SYS(fcntl(twin, F_GETFL)) & O_NONBLOCK, O_NONBLOCK);
    CHECK_EQ(SYS(fcntl(other, F_GETFL)) & O_NONBLOCK, 0);
    CHECK_EQ(SYS(fcntl(other, F_GETFD)), 0);
    CHECK_EQ(SYS(fcntl(of_child, F_GETFD)), FD_CLOEXEC);
    CHECK_EQ(SYS(syscall(SYS_kcmp, getpid(), getpid(), 0, of_child, twin)), 0);
    CHECK(SYS(syscall(SYS_kcmp, getpid(), getpid(), 0, of_child, other)) != 0, "two descriptions have become one");
    CHECK_EQ(events_of(of_child), 0);
    CHECK_EQ(events_of(of_zombie), POLLIN);
    CHECK_EQ(events_of(of_reaped), reaped_events);
    CHECK_EQ(status_of(of_reaped), reaped_status);
    CHECK_EQ(status_of(of_killed), killed_status);
    CHECK(reaped_status == -1 || reaped_status == 44 << 8, "the kernel says 0x%x", reaped_status);
    CHECK(syscall(SYS_pidfd_send_signal, of_reaped, 0, NULL, 0) < 0 && errno == ESRCH, "the process that had ended is back");
    CHECK(waitid(P_PIDFD, of_child, &info, WEXITED) < 0 && errno == EAGAIN, "PIDFD_NONBLOCK is lost: %s", strerror(errno));
    await_that(signals == 1);
    reap(looking);
    send_signal(of_child, SIGKILL);
    await_that(events_of(twin) == POLLIN);
    SYS(waitid(P_PIDFD, other, &info, WEXITED));
    CHECK(info.si_pid == waiting && info.si_code == CLD_KILLED, "waited for %d", info.si_pid);
    SYS(waitid(P_PIDFD, of_zombie, &info, WEXITED));
    CHECK(info.si_pid == zombie && info.si_code == CLD_EXITED && info.si_status == 33, "the zombie's status is %d", info.si_status);
}

static void *thread_body(void *tid)
{
    *(pid_t *)tid = thread_id();
    thread_hold();
    return NULL;
}

static void check_threads(void)
{
    static pid_t tid;
    pthread_t thread = start_thread(thread_body, &tid);
    await_threads(1);
    int of_thread = syscall(SYS_pidfd_open, tid, THREAD);
    if (of_thread < 0)
        subject_skip("no PIDFD_THREAD");
    int of_leader = open_pidfd(getpid(), THREAD | O_NONBLOCK);
    subject_hold();
    CHECK_EQ(target_of(of_thread), tid);
    CHECK_EQ(target_of(of_leader), getpid());
    CHECK_EQ(SYS(fcntl(of_thread, F_GETFL)) & (THREAD | O_NONBLOCK), THREAD);
    CHECK_EQ(SYS(fcntl(of_leader, F_GETFL)) & (THREAD | O_NONBLOCK), THREAD | O_NONBLOCK);
    CHECK_EQ(events_of(of_thread), 0);
    release_threads();
    PTHREAD(pthread_join(thread, NULL));
    await_that(events_of(of_thread) & POLLIN);
    CHECK_EQ(events_of(of_leader), 0);
}

static void check_epoll(void)
{
    int epoll = SYS(epoll_create1(EPOLL_CLOEXEC));
    pid_t waiting = fork_member(waits, NULL), zombie = fork_member(exits, (void *)3), reaped = fork_member(exits, (void *)4);
    await_member("waits");
    int of_child = open_pidfd(waiting, 0), of_zombie = open_pidfd(zombie, 0), of_reaped = open_pidfd(reaped, 0);
    int edge = open_pidfd(zombie, 0), number = SYS(fcntl(of_child, F_DUPFD_CLOEXEC, 120));
    siginfo_t info;
    SYS(waitid(P_PID, zombie, &info, WEXITED | WNOWAIT));
    SYS(waitid(P_PID, reaped, &info, WEXITED));
    struct epoll_event event, events[8];
    int fds[] = {of_child, of_zombie, of_reaped, number};
    for (int i = 0; i < 4; i++) {
        event = (struct epoll_event){EPOLLIN, {.u64 = 1000 + i}};
        SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &event));
    }
    event = (struct epoll_event){EPOLLIN | EPOLLONESHOT, {.u64 = 2000}};
    SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, edge, &event));
    subject_hold();
    CHECK_EQ(SYS(epoll_wait(epoll, events, 8, 0)), 3);
    uint64_t sum = 0;
    for (int i = 0; i < 3; i++)
        sum += events[i].data.u64;
    CHECK_EQ(sum, 1001 + 1002 + 2000);
    CHECK_EQ(SYS(epoll_wait(epoll, events, 8, 0)), 2);
    send_signal(of_child, SIGKILL);
    SYS(waitid(P_PIDFD, of_child, &info, WEXITED));
    CHECK_EQ(SYS(epoll_wait(epoll, events, 8, 1000)), 4);
    SYS(epoll_ctl(epoll, EPOLL_CTL_DEL, number, NULL));
    SYS(epoll_ctl(epoll, EPOLL_CTL_DEL, of_zombie, NULL));
    CHECK_EQ(SYS(epoll_wait(epoll, events, 8, 0)), 2);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (variant("threads"))
        check_threads();
    else if (variant("epoll"))
        check_epoll();
    else
        check_tree();
    subject_pass();
}
