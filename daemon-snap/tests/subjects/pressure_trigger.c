/* A memory pressure trigger as systemd asks services to make it (MEMORY_PRESSURE_WATCH, MEMORY_PRESSURE_WRITE) is there again. */
#include "subject.h"
#include <poll.h>
#include <sys/epoll.h>

static const char text[] = "some 200000 2000000";

static short events(int fd)
{
    struct pollfd entry = {.fd = fd, .events = POLLPRI};
    SYS(poll(&entry, 1, 0));
    return entry.revents;
}

int main(int argc, char **argv)
{
    static char *environment[] = {"MEMORY_PRESSURE_WATCH=/proc/pressure/memory",
                                  "MEMORY_PRESSURE_WRITE=c29tZSAyMDAwMDAgMjAwMDAwMAA=", "PATH=/usr/bin:/bin", NULL};
    if (!getenv("MEMORY_PRESSURE_WATCH"))
        SYS(execve("/proc/self/exe", argv, environment));
    subject_begin(argc, argv);
    int fd = open("/proc/pressure/memory", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        subject_skip("no pressure stall information");
    int unused = SYS(open("/proc/pressure/memory", O_RDWR | O_NONBLOCK | O_CLOEXEC));
    CHECK_EQ(write(fd, text, sizeof text), sizeof text);
    int epoll = SYS(epoll_create1(EPOLL_CLOEXEC));
    struct epoll_event event = {EPOLLPRI, {.u64 = 5}};
    SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
    CHECK(!(events(fd) & POLLERR), "the trigger is not armed");
    CHECK(events(unused) & POLLERR, "a file without a trigger has one");
    subject_hold();
    CHECK(!(events(fd) & POLLERR), "the trigger is not armed any more");
    CHECK(events(unused) & POLLERR, "a file without a trigger has one now");
    CHECK(write(fd, text, sizeof text) < 0 && errno == EBUSY, "a second trigger on the same file");
    char bytes[64];
    CHECK(pread(fd, bytes, sizeof bytes, 0) > 10 && memcmp(bytes, "some avg10", 10) == 0, "it reads %.10s", bytes);
    subject_pass();
}
