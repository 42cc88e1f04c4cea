/* One epoll set inherited over fork: both processes see one set. */
#include "subject.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

static int epoll, counter;

static void child(void *unused)
{
    (void)unused;
    member_hold("child");
    struct epoll_event event;
    CHECK_EQ(epoll_wait(epoll, &event, 1, 5000), 1);
    CHECK_EQ(event.data.u64, 4321);
    uint64_t count;
    CHECK_EQ(read(counter, &count, 8), 8);
    CHECK_EQ(count, 9);
    SYS(epoll_ctl(epoll, EPOLL_CTL_DEL, counter, NULL));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    epoll = SYS(epoll_create1(0));
    counter = SYS(eventfd(0, EFD_NONBLOCK));
    struct epoll_event event = {EPOLLIN, {.u64 = 4321}};
    SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, counter, &event));
    pid_t pid = fork_member(child, NULL);
    await_member("child");
    subject_hold();
    uint64_t nine = 9;
    SYS(write(counter, &nine, 8));
    reap(pid);
    SYS(write(counter, &nine, 8));
    CHECK_EQ(epoll_wait(epoll, &event, 1, 0), 0); /* the child took it out of the one set */
    subject_pass();
}
