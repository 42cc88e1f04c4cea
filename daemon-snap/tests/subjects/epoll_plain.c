/* An epoll set: which descriptors, which events, which data; ready ones are ready, one-shot ones stay disarmed. */
#include "subject.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

static int epoll;

static void add(int fd, uint32_t events, uint64_t data)
{
    struct epoll_event event = {events, {.u64 = data}};
    SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    epoll = SYS(epoll_create1(EPOLL_CLOEXEC));
    int outer = SYS(epoll_create1(0));
    int ready = SYS(eventfd(1, EFD_NONBLOCK)), idle = SYS(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    int once = SYS(eventfd(1, EFD_NONBLOCK)), muted = SYS(eventfd(5, EFD_NONBLOCK));
    int ends[2];
    SYS(pipe2(ends, O_CLOEXEC));
    int number = SYS(dup2(idle, 300));
    add(ready, EPOLLIN, 0xdeadbeefcafef00dull);
    add(number, EPOLLIN | EPOLLPRI, 0x1111222233334444ull);
    add(once, EPOLLIN | EPOLLONESHOT, 77);
    add(muted, 0, 88);
    add(ends[1], EPOLLOUT | EPOLLET, 99);
    struct epoll_event events[16], inner = {EPOLLIN, {.u64 = 12345}};
    SYS(epoll_ctl(outer, EPOLL_CTL_ADD, epoll, &inner));
    CHECK_EQ(epoll_wait(epoll, events, 16, 0), 3); /* ready, once, ends[1] */
    subject_hold();

    CHECK_EQ(epoll_wait(outer, events, 16, 0), 1);
    CHECK_EQ(events[0].data.u64, 12345);
    /* the edge of the pipe may be seen once more, the disarmed one may not */
    int count = SYS(epoll_wait(epoll, events, 16, 0));
    bool saw_ready = false;
    for (int i = 0; i < count; i++) {
        saw_ready |= events[i].data.u64 == 0xdeadbeefcafef00dull && events[i].events == EPOLLIN;
        CHECK(events[i].data.u64 != 77, "the one-shot entry is armed again");
        CHECK(events[i].data.u64 != 88, "the entry without events reports some");
        CHECK(events[i].data.u64 != 0x1111222233334444ull, "the idle entry reports an event");
    }
    CHECK(saw_ready && count <= 2, "%d events, the ready one %s", count, saw_ready ? "among them" : "missing");
    uint64_t one = 1;
    SYS(read(ready, &one, 8));
    one = 1;
    SYS(write(number, &one, 8));
    CHECK_EQ(epoll_wait(epoll, events, 16, 0), 1);
    CHECK(events[0].data.u64 == 0x1111222233334444ull && events[0].events == EPOLLIN, "wrong event 0x%x of 0x%lx",
          events[0].events, (long)events[0].data.u64);
    struct epoll_event again = {EPOLLIN, {.u64 = 770}};
    SYS(epoll_ctl(epoll, EPOLL_CTL_MOD, once, &again)); /* known under its number */
    SYS(epoll_ctl(epoll, EPOLL_CTL_DEL, muted, NULL));
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, number, &again) < 0 && errno == EEXIST, "300 was not in the set");
    CHECK(epoll_ctl(epoll, EPOLL_CTL_DEL, idle, NULL) < 0 && errno == ENOENT, "it is registered as %d", idle);
    subject_pass();
}
