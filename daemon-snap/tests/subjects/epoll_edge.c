/* An edge-triggered entry reports new input afterwards, and at most once the input that was there before. */
#include "subject.h"
#include <sys/epoll.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int epoll = SYS(epoll_create1(EPOLL_CLOEXEC)), ends[2], quiet[2];
    SYS(pipe2(ends, O_NONBLOCK | O_CLOEXEC));
    SYS(pipe2(quiet, O_NONBLOCK | O_CLOEXEC));
    struct epoll_event event = {EPOLLIN | EPOLLET | EPOLLRDHUP, {.u64 = 5}}, events[4];
    SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event));
    event.data.u64 = 6;
    SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, quiet[0], &event));
    SYS(write(ends[1], "old", 3));
    CHECK_EQ(epoll_wait(epoll, events, 4, 0), 1);
    CHECK_EQ(epoll_wait(epoll, events, 4, 0), 0);
    subject_hold();
    int spurious = SYS(epoll_wait(epoll, events, 4, 0));
    CHECK(spurious <= 1 && (spurious == 0 || events[0].data.u64 == 5), "%d events before anything happened", spurious);
    CHECK_EQ(epoll_wait(epoll, events, 4, 0), 0);
    SYS(write(ends[1], "new", 3));
    CHECK_EQ(epoll_wait(epoll, events, 4, 500), 1);
    CHECK_EQ(events[0].data.u64, 5);
    CHECK_EQ(epoll_wait(epoll, events, 4, 0), 0); /* edge, not level */
    char bytes[8];
    CHECK_EQ(read(ends[0], bytes, 8), 6);
    CHECK(memcmp(bytes, "oldnew", 6) == 0, "pipe holds %.6s", bytes);
    SYS(write(quiet[1], "x", 1));
    CHECK_EQ(epoll_wait(epoll, events, 4, 500), 1);
    CHECK_EQ(events[0].data.u64, 6);
    subject_pass();
}
