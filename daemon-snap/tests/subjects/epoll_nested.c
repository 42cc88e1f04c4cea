/* Epoll sets that watch epoll sets, and watches whose number has been closed while another number keeps the description. */
#include "subject.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

enum { LEVELS = 4 };

static int sets[LEVELS], counter;

static void add(int set, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event event = {events, {.u64 = data}};
    SYS(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
}

/* One event of this set, or none. */
static void expect(int set, uint64_t data)
{
    struct epoll_event events[8];
    CHECK_EQ(epoll_wait(set, events, 8, 0), 1);
    CHECK_EQ(events[0].data.u64, data);
}

static void expect_none(int set)
{
    struct epoll_event events[8];
    int count = SYS(epoll_wait(set, events, 8, 0));
    CHECK(count == 0, "%d events, the first with %llu", count, (unsigned long long)events[0].data.u64);
}

static void count_up(int fd)
{
    uint64_t one = 1;
    SYS(write(fd, &one, 8));
}

static void empty(int fd)
{
    uint64_t count;
    SYS(read(fd, &count, 8));
}

/* sets[0] watches a counter, each of the others the one before. */
static void make_chain(void)
{
    counter = SYS(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    for (int i = 0; i < LEVELS; i++) {
        sets[i] = SYS(epoll_create1(i % 2 ? EPOLL_CLOEXEC : 0));
        add(sets[i], i ? sets[i - 1] : counter, EPOLLIN, 1000 + i);
    }
}

static void levels(void)
{
    /* Made so that an outer set has a lower number than what it watches, too. */
    int early = SYS(epoll_create1(0));
    make_chain();
    add(early, sets[1], EPOLLIN | EPOLLRDHUP, 77);
    add(early, counter, EPOLLIN, 78);
    subject_hold();
    for (int i = 0; i < LEVELS; i++)
        expect_none(sets[i]);
    expect_none(early);
    count_up(counter);
    for (int i = LEVELS - 1; i >= 0; i--)
        expect(sets[i], 1000 + i);
    struct epoll_event events[8];
    CHECK_EQ(epoll_wait(early, events, 8, 0), 2);
    empty(counter);
    for (int i = 0; i < LEVELS; i++)
        expect_none(sets[i]);
    struct epoll_event event = {EPOLLIN, {.u64 = 0}};
    CHECK(epoll_ctl(sets[0], EPOLL_CTL_ADD, sets[LEVELS - 1], &event) < 0 && errno == ELOOP, "a loop was not seen");
    SYS(epoll_ctl(sets[2], EPOLL_CTL_DEL, sets[1], NULL));
    count_up(counter);
    expect_none(sets[LEVELS - 1]);
    expect(early, 78 - (epoll_ctl(early, EPOLL_CTL_DEL, counter, NULL) == 0));
}

static void ready_inside(void)
{
    make_chain();
    count_up(counter);
    subject_hold();
    for (int i = LEVELS - 1; i >= 0; i--)
        expect(sets[i], 1000 + i);
    empty(counter);
    for (int i = 0; i < LEVELS; i++)
        expect_none(sets[i]);
}

/* One-shot watches of a set that have had their event; whether the inner set is ready today does not matter. */
static void spent(void)
{
    int ready = SYS(epoll_create1(0)), idle = SYS(epoll_create1(0)), outer = SYS(epoll_create1(0));
    int full = SYS(eventfd(1, EFD_NONBLOCK));
    counter = SYS(eventfd(1, EFD_NONBLOCK));
    add(ready, full, EPOLLIN, 1);
    add(idle, counter, EPOLLIN, 2);
    add(outer, ready, EPOLLIN | EPOLLONESHOT, 3);
    expect(outer, 3);
    add(outer, idle, EPOLLIN | EPOLLONESHOT, 4);
    expect(outer, 4);
    empty(counter);
    subject_hold();
    expect(ready, 1);
    expect_none(idle);
    expect_none(outer);
    count_up(counter);
    expect(idle, 2);
    expect_none(outer);
    struct epoll_event again = {EPOLLIN, {.u64 = 40}};
    SYS(epoll_ctl(outer, EPOLL_CTL_MOD, idle, &again));
    expect(outer, 40);
}

static void child(void *unused)
{
    (void)unused;
    int own = SYS(epoll_create1(0));
    add(own, sets[2], EPOLLIN, 9);
    member_hold("child");
    struct epoll_event event;
    CHECK_EQ(epoll_wait(own, &event, 1, 5000), 1);
    CHECK_EQ(event.data.u64, 9);
    expect(sets[LEVELS - 1], 1000 + LEVELS - 1);
    empty(counter);
    expect_none(own);
    SYS(epoll_ctl(sets[1], EPOLL_CTL_DEL, sets[0], NULL));
}

static void shared(void)
{
    make_chain();
    pid_t pid = fork_member(child, NULL);
    await_member("child");
    subject_hold();
    count_up(counter);
    reap(pid);
    count_up(counter);
    expect(sets[0], 1000);
    expect_none(sets[LEVELS - 1]); /* the child took it out of what both have */
}

/* The number was closed and means something else by now, or nothing; a duplicate keeps the description. */
static void closed(void)
{
    int set = SYS(epoll_create1(0)), inner = SYS(epoll_create1(0));
    int first = SYS(eventfd(0, EFD_NONBLOCK)), second = SYS(eventfd(0, EFD_NONBLOCK));
    counter = SYS(eventfd(0, EFD_NONBLOCK));
    add(inner, counter, EPOLLIN, 1);
    add(set, first, EPOLLIN, 10);
    int kept = SYS(fcntl(first, F_DUPFD_CLOEXEC, 400));
    add(set, kept, EPOLLIN, 11); /* the same description under another number */
    SYS(dup2(second, first));
    add(set, first, EPOLLIN, 12); /* another description under the same number */
    add(set, inner, EPOLLIN, 13);
    int kept_inner = SYS(fcntl(inner, F_DUPFD, 401));
    int other = SYS(eventfd(0, EFD_NONBLOCK)), highest = SYS(fcntl(other, F_DUPFD, 900));
    SYS(close(inner));
    add(set, highest, EPOLLIN, 14);
    SYS(close(highest)); /* no number as high is open */
    subject_hold();
    count_up(other);
    expect(set, 14);
    empty(other);
    CHECK(fcntl(inner, F_GETFD) < 0 && errno == EBADF, "%d is open", inner);
    struct epoll_event events[8];
    count_up(counter);
    expect(set, 13);
    expect(kept_inner, 1);
    empty(counter);
    count_up(second);
    expect(set, 12);
    empty(first);
    count_up(kept);
    CHECK_EQ(epoll_wait(set, events, 8, 0), 2);
    CHECK_EQ(events[0].data.u64 + events[1].data.u64, 21);
    SYS(epoll_ctl(set, EPOLL_CTL_DEL, kept, NULL));
    expect(set, 10);
    /* Nobody can name the first watch any more, but it ends with its description. */
    SYS(close(kept));
    expect_none(set);
}

static int kept_by_child;

static void keeping_child(void *set)
{
    member_hold("child");
    struct epoll_event event;
    CHECK_EQ(epoll_wait(*(int *)set, &event, 1, 5000), 1);
    CHECK_EQ(event.data.u64, 21);
    empty(kept_by_child);
}

/* The parent has closed what it watches; its child has it still. */
static void closed_by_parent(void)
{
    int set = SYS(epoll_create1(0));
    kept_by_child = SYS(eventfd(0, EFD_NONBLOCK));
    int other = SYS(eventfd(0, EFD_NONBLOCK));
    add(set, kept_by_child, EPOLLIN, 21);
    add(set, other, EPOLLIN, 22);
    pid_t pid = fork_member(keeping_child, &set);
    await_member("child");
    int number = kept_by_child;
    SYS(close(kept_by_child));
    subject_hold();
    CHECK(fcntl(number, F_GETFD) < 0 && errno == EBADF, "%d is open", number);
    expect_none(set);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, number);
    /* An eventfd cannot be opened by its link, so the child's is taken. */
    int pidfd = SYS(syscall(SYS_pidfd_open, pid, 0));
    int taken = SYS(syscall(SYS_pidfd_getfd, pidfd, number, 0));
    count_up(taken);
    SYS(close(taken));
    reap(pid);
    expect_none(set); /* with the child the description has gone, and the watch with it */
    count_up(other);
    expect(set, 22);
}

/* What only its process can open, under a number that means something else by now. */
static void proc_closed(void)
{
    int set = SYS(epoll_create1(0));
    int mounts = SYS(open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC));
    add(set, mounts, EPOLLPRI, 41);
    int kept = SYS(fcntl(mounts, F_DUPFD_CLOEXEC, 60));
    SYS(dup2(SYS(eventfd(3, EFD_NONBLOCK)), mounts));
    subject_hold();
    expect_none(set);
    uint64_t count;
    CHECK_EQ(read(mounts, &count, 8), 8);
    CHECK_EQ(count, 3);
    struct epoll_event event = {EPOLLIN, {.u64 = 0}};
    CHECK(epoll_ctl(set, EPOLL_CTL_DEL, mounts, NULL) < 0 && errno == ENOENT, "the eventfd is watched");
    SYS(epoll_ctl(set, EPOLL_CTL_ADD, kept, &event)); /* only known as another number */
}

/* A signalfd tells of the signals of whoever has added it, whatever its number is by now. */
static void signalfd_closed(void)
{
    int set = SYS(epoll_create1(0));
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    SYS(sigprocmask(SIG_BLOCK, &mask, NULL));
    int fd = SYS(signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC));
    add(set, fd, EPOLLIN, 31);
    int kept = SYS(fcntl(fd, F_DUPFD_CLOEXEC, 50));
    int other = SYS(eventfd(0, EFD_NONBLOCK));
    SYS(dup3(other, fd, O_CLOEXEC));
    subject_hold();
    expect_none(set);
    SYS(kill(getpid(), SIGUSR1));
    struct epoll_event event;
    CHECK_EQ(epoll_wait(set, &event, 1, 1000), 1);
    CHECK_EQ(event.data.u64, 31);
    struct signalfd_siginfo got;
    CHECK_EQ(read(kept, &got, sizeof got), (long)sizeof got);
    CHECK_EQ(got.ssi_signo, SIGUSR1);
    count_up(fd);
    empty(other);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (variant("levels"))
        levels();
    else if (variant("ready"))
        ready_inside();
    else if (variant("spent"))
        spent();
    else if (variant("shared"))
        shared();
    else if (variant("closed"))
        closed();
    else if (variant("closed_by_parent"))
        closed_by_parent();
    else if (variant("proc_closed"))
        proc_closed();
    else
        signalfd_closed();
    subject_pass();
}
