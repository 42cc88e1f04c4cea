/* A thread that is stopped inside a system call goes on in it, or sees EINTR where the kernel's rules allow that; it never
 * sees another error, a wrong value, or nothing at all. One variant for each call. */
#include "subject.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/socket.h>

static int ends[2], sockets[2], counter, epoll;
static atomic_int word, done;
static volatile pid_t blocked_tid;
static pid_t child_pid;
static volatile int handled;

static void on_usr1(int signal)
{
    (void)signal;
    handled++;
}

static void check_mask(uint64_t wanted)
{
    uint64_t now = 0;
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &now, 8);
    CHECK_EQ(now, wanted);
}

/* Longer than a dump, a restore and a second dump take on a busy machine: the thread has to be asleep in all of them. */
enum { SLEEP_S = 3 };

/* Blocked calls that end when main calls wake(). */
static void sleeps_relative(void)
{
    struct timespec span = {SLEEP_S, 0}, left = {0, 0};
    int64_t begin = now_ns(CLOCK_MONOTONIC);
    while (nanosleep(&span, &left) < 0) {
        CHECK_EQ(errno, EINTR);
        int64_t left_ns = left.tv_sec * NS_PER_S + left.tv_nsec;
        CHECK(left_ns > 0 && left_ns <= span.tv_sec * NS_PER_S + span.tv_nsec, "%ld ns left", (long)left_ns);
        span = left;
    }
    CHECK(now_ns(CLOCK_MONOTONIC) - begin >= SLEEP_S * NS_PER_S - 5 * NS_PER_MS, "slept only %ld ns",
          (long)(now_ns(CLOCK_MONOTONIC) - begin));
}

static void sleeps_until(void)
{
    int64_t until = now_ns(CLOCK_MONOTONIC) + SLEEP_S * NS_PER_S;
    struct timespec at = {until / NS_PER_S, until % NS_PER_S};
    int error;
    while ((error = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL)) == EINTR)
        ;
    CHECK_EQ(error, 0);
    CHECK(now_ns(CLOCK_MONOTONIC) >= until, "woke too early");
}

/* Without a handler nobody sees EINTR. */
static void sleeps_alone(void)
{
    struct timespec span = {SLEEP_S, 0};
    int64_t begin = now_ns(CLOCK_MONOTONIC);
    int got = clock_nanosleep(CLOCK_MONOTONIC, 0, &span, NULL);
    CHECK_EQ(got, 0);
    CHECK(now_ns(CLOCK_MONOTONIC) - begin >= SLEEP_S * NS_PER_S - 5 * NS_PER_MS, "slept only %ld ns",
          (long)(now_ns(CLOCK_MONOTONIC) - begin));
}

/* Ends at the time that was said, and not because of a stop. */
static void waits_on_futex_until(void)
{
    enum { WAIT_BITSET_PRIVATE = 9 | 128 };
    int64_t until = now_ns(CLOCK_MONOTONIC) + SLEEP_S * NS_PER_S;
    struct timespec at = {until / NS_PER_S, until % NS_PER_S};
    long got = syscall(SYS_futex, &word, WAIT_BITSET_PRIVATE, 0, &at, NULL, ~0u);
    CHECK(got < 0 && errno == ETIMEDOUT, "futex gave %ld: %s", got, strerror(errno));
    CHECK(now_ns(CLOCK_MONOTONIC) >= until, "woke too early");
}

static void waits_on_futex_alone(void)
{
    struct timespec limit = {30, 0};
    long got = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &limit, NULL, 0);
    CHECK(got == 0, "futex gave %ld: %s", got, strerror(errno));
}

static void waits_on_futex(bool timed)
{
    struct timespec limit = {30, 0};
    int64_t begin = now_ns(CLOCK_MONOTONIC);
    while (atomic_load(&word) == 0) {
        long got = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, timed ? &limit : NULL, NULL, 0);
        CHECK(got == 0 || errno == EINTR || errno == EAGAIN, "futex: %s", strerror(errno));
    }
    CHECK(now_ns(CLOCK_MONOTONIC) - begin < 25 * NS_PER_S, "the wake was lost");
}

static void reads(int fd)
{
    char bytes[8];
    ssize_t got = read(fd, bytes, sizeof bytes); /* restarts by itself: no EINTR without a handler */
    CHECK(got == 2 && memcmp(bytes, "hi", 2) == 0, "read gave %zd: %s", got, strerror(errno));
}

static void polls(void)
{
    struct pollfd fd = {ends[0], POLLIN, 0};
    int got;
    got = poll(&fd, 1, 30000); /* no handler runs, so it is never interrupted */
    CHECK_EQ(got, 1);
    CHECK_EQ(fd.revents, POLLIN);
}

static void polls_with_mask(void)
{
    struct pollfd fd = {ends[0], POLLIN, 0};
    uint64_t before = 1ull << (SIGUSR1 - 1) | 1ull << 50, during = 1ull << 51;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, 8);
    struct timespec limit = {30, 0};
    int got;
    do
        got = syscall(SYS_ppoll, &fd, 1, &limit, &during, 8);
    while (got < 0 && errno == EINTR && handled == 0);
    CHECK(got < 0 && errno == EINTR && handled == 1, "ppoll gave %d, %s, %d signals", got, strerror(errno), handled);
    check_mask(before);
}

static void selects(void)
{
    fd_set set;
    int got;
    do {
        FD_ZERO(&set);
        FD_SET(ends[0], &set);
        struct timeval limit = {30, 0};
        got = select(ends[0] + 1, &set, NULL, NULL, &limit);
    } while (got < 0 && errno == EINTR);
    CHECK_EQ(got, 1);
    CHECK(FD_ISSET(ends[0], &set), "select set nothing");
}

static void waits_on_epoll(void)
{
    struct epoll_event event;
    int got;
    while ((got = epoll_wait(epoll, &event, 1, 30000)) < 0)
        CHECK_EQ(errno, EINTR);
    CHECK_EQ(got, 1);
    CHECK_EQ(event.data.u64, 31337);
}

static void suspends(void)
{
    uint64_t before = 1ull << (SIGUSR1 - 1) | 1ull << 50, during = 1ull << 51;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, 8);
    long got = syscall(SYS_rt_sigsuspend, &during, 8);
    CHECK(got == -1 && errno == EINTR, "sigsuspend gave %ld, %s", got, strerror(errno));
    CHECK_EQ(handled, 1);
    check_mask(before);
}

static void waits_for_signal(void)
{
    uint64_t set = 1ull << (SIGUSR1 - 1), before = set;
    siginfo_t info;
    struct timespec limit = {30, 0};
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, 8);
    long got;
    while ((got = syscall(SYS_rt_sigtimedwait, &set, &info, &limit, 8)) < 0)
        CHECK_EQ(errno, EINTR);
    CHECK_EQ(got, SIGUSR1);
    CHECK_EQ(handled, 0);
    check_mask(before);
}

/* Without a time limit and a handler nobody sees EINTR. */
static void waits_for_signal_alone(void)
{
    uint64_t set = 1ull << (SIGUSR1 - 1);
    siginfo_t info;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &set, NULL, 8);
    long got = syscall(SYS_rt_sigtimedwait, &set, &info, NULL, 8);
    CHECK(got == SIGUSR1, "sigtimedwait gave %ld: %s", got, strerror(errno));
    CHECK_EQ(handled, 0);
}

static void receives_with_limit(void)
{
    char bytes[8];
    ssize_t got = variant("recv_limited") ? recv(sockets[0], bytes, 8, 0) : read(sockets[0], bytes, 8);
    CHECK(got == 2, "received %zd: %s", got, strerror(errno));
}

static void accepts(void)
{
    int got = accept4(sockets[0], NULL, NULL, SOCK_CLOEXEC);
    CHECK(got >= 0, "accept: %s", strerror(errno));
}

static void writes(void)
{
    static char bulk[1 << 17];
    fill(bulk, sizeof bulk, 1);
    for (size_t at = 0; at < sizeof bulk;) { /* a stop ends a write that has begun, with what it has done */
        ssize_t got = write(ends[1], bulk + at, sizeof bulk - at);
        CHECK(got > 0 && (size_t)got <= sizeof bulk - at, "write gave %zd: %s", got, strerror(errno));
        at += got;
    }
}

static void pauses(void)
{
    int got = pause();
    CHECK(got == -1 && errno == EINTR && handled == 1, "pause gave %d, %s, %d signals", got, strerror(errno), handled);
}

static void waits_for_child(void)
{
    int status;
    pid_t got = waitpid(child_pid, &status, 0);
    CHECK(got == child_pid && status == 0, "waitpid gave %d, status 0x%x: %s", got, status, strerror(errno));
}

static const struct {
    const char *name;
    long number;
} calls[] = {{"nanosleep", SYS_clock_nanosleep}, {"nanosleep_until", SYS_clock_nanosleep}, {"futex", SYS_futex},
             {"futex_timed", SYS_futex}, {"futex_until", SYS_futex}, {"futex_alone", SYS_futex},
             {"nanosleep_alone", SYS_clock_nanosleep}, {"read_pipe", SYS_read}, {"read_eventfd", SYS_read}, {"recv", SYS_recvfrom},
             {"poll", SYS_poll}, {"ppoll_mask", SYS_ppoll}, {"select", SYS_pselect6}, {"epoll_wait", SYS_epoll_wait},
             {"sigsuspend", SYS_rt_sigsuspend}, {"sigtimedwait", SYS_rt_sigtimedwait}, {"accept", SYS_accept4},
             {"sigwaitinfo", SYS_rt_sigtimedwait}, {"recv_limited", SYS_recvfrom}, {"read_limited", SYS_read},
             {"accept_limited", SYS_accept4},
             {"write_pipe", SYS_write}, {"pause", SYS_pause}, {"waitpid", SYS_wait4}};

static void *body(void *unused)
{
    blocked_tid = thread_id();
    uint64_t count;
    if (variant("nanosleep"))
        sleeps_relative();
    else if (variant("nanosleep_until"))
        sleeps_until();
    else if (variant("nanosleep_alone"))
        sleeps_alone();
    else if (variant("futex_until"))
        waits_on_futex_until();
    else if (variant("futex_alone"))
        waits_on_futex_alone();
    else if (variant("futex") || variant("futex_timed"))
        waits_on_futex(variant("futex_timed"));
    else if (variant("read_pipe"))
        reads(ends[0]);
    else if (variant("read_eventfd"))
        CHECK(read(counter, &count, 8) == 8 && count == 5, "eventfd read %lu: %s", count, strerror(errno));
    else if (variant("recv")) {
        char bytes[8];
        CHECK_EQ(recv(sockets[0], bytes, 8, 0), 2);
    } else if (variant("poll"))
        polls();
    else if (variant("ppoll_mask"))
        polls_with_mask();
    else if (variant("select"))
        selects();
    else if (variant("epoll_wait"))
        waits_on_epoll();
    else if (variant("sigsuspend"))
        suspends();
    else if (variant("sigtimedwait"))
        waits_for_signal();
    else if (variant("sigwaitinfo"))
        waits_for_signal_alone();
    else if (variant("recv_limited") || variant("read_limited"))
        receives_with_limit();
    else if (variant("accept") || variant("accept_limited"))
        accepts();
    else if (variant("write_pipe"))
        writes();
    else if (variant("pause"))
        pauses();
    else
        waits_for_child();
    atomic_store(&done, 1);
    return unused;
}

static void waiting_child(void *unused)
{
    (void)unused;
    member_hold("child");
    nap_ms(20);
}

static void make_objects(void)
{
    SYS(pipe2(ends, O_CLOEXEC));
    counter = SYS(eventfd(0, EFD_CLOEXEC));
    epoll = SYS(epoll_create1(EPOLL_CLOEXEC));
    struct epoll_event event = {EPOLLIN, {.u64 = 31337}};
    SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event));
    if (variant("accept") || variant("accept_limited")) {
        sockets[0] = SYS(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        SYS(bind(sockets[0], (struct sockaddr *)&(sa_family_t){AF_UNIX}, sizeof(sa_family_t))); /* any abstract name */
        SYS(listen(sockets[0], 5));
    } else {
        SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets));
    }
    if (strstr(subject_variant, "_limited")) {
        struct timeval limit = {30, 0};
        SYS(setsockopt(sockets[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
        SYS(setsockopt(sockets[0], SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit));
    }
    if (variant("waitpid")) {
        child_pid = fork_member(waiting_child, NULL);
        await_member("child");
    }
}

/* Lets the blocked call end. */
static void wake(void)
{
    static char drain[1 << 17];
    if (variant("recv") || variant("recv_limited") || variant("read_limited"))
        SYS(send(sockets[1], "hi", 2, 0));
    else if (variant("read_eventfd"))
        SYS(write(counter, &(uint64_t){5}, 8));
    else if (variant("futex") || variant("futex_timed") || variant("futex_alone")) {
        atomic_store(&word, 1);
        syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    } else if (variant("sigsuspend") || variant("sigtimedwait") || variant("sigwaitinfo") || variant("ppoll_mask") || variant("pause"))
        SYS(syscall(SYS_tgkill, getpid(), blocked_tid, SIGUSR1));
    else if (variant("accept") || variant("accept_limited")) {
        char address[128];
        socklen_t len = sizeof address;
        SYS(getsockname(sockets[0], (struct sockaddr *)address, &len));
        int client = SYS(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        SYS(connect(client, (struct sockaddr *)address, len));
    } else if (variant("write_pipe")) {
        for (size_t at = 0; at < sizeof drain;)
            at += SYS(read(ends[0], drain + at, sizeof drain - at));
        check_filled(drain, sizeof drain, 1, "what was written");
    } else if (!variant("waitpid") && !variant("futex_until") && strncmp(subject_variant, "nanosleep", 9) != 0)
        SYS(write(ends[1], "hi", 2));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sigaction action = {.sa_handler = on_usr1};
    SYS(sigaction(SIGUSR1, &action, NULL));
    make_objects();
    pthread_t thread = start_thread(body, NULL);
    long number = -1;
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
        if (variant(calls[i].name))
            number = calls[i].number;
    CHECK(number >= 0, "no variant %s", subject_variant);
    await_that(blocked_tid != 0);
    await_blocked(blocked_tid, number);
    subject_hold();
    if (strncmp(subject_variant, "nanosleep", 9) != 0 && !variant("waitpid") && !variant("futex_until")) {
        nap_ms(10);
        CHECK(!atomic_load(&done), "the call ended before anything woke it");
        await_blocked(blocked_tid, number);
    }
    wake();
    await_that(atomic_load(&done));
    PTHREAD(pthread_join(thread, NULL));
    subject_pass();
}
