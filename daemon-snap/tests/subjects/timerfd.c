/* Variants relative, absolute, realtime, cancelled (by setting the clock), pending, disarmed: what a timerfd has left, its interval and unread expirations. */
#include "subject.h"
#include <poll.h>
#include <sys/timerfd.h>

static int64_t ns(struct timespec spec)
{
    return spec.tv_sec * NS_PER_S + spec.tv_nsec;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    bool real = variant("realtime") || variant("cancelled");
    clockid_t clock = real ? CLOCK_REALTIME : CLOCK_MONOTONIC;
    int flags = variant("absolute") || variant("realtime") ? TFD_TIMER_ABSTIME
                : variant("cancelled") ? TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET : 0;
    int fd = SYS(timerfd_create(clock, TFD_CLOEXEC | TFD_NONBLOCK));
    struct itimerspec spec = {{0, 0}, {400, 0}}, now;
    if (flags)
        spec.it_value.tv_sec += now_ns(clock) / NS_PER_S;
    if (variant("relative"))
        spec.it_interval = (struct timespec){2, 500};
    if (variant("pending"))
        spec = (struct itimerspec){{0, 5 * NS_PER_MS}, {0, NS_PER_MS}};
    if (!variant("disarmed"))
        SYS(timerfd_settime(fd, flags, &spec, NULL));
    uint64_t count = 0;
    if (variant("pending"))
        nap_ms(40);
    SYS(timerfd_gettime(fd, &spec));
    int64_t start = now_ns(CLOCK_MONOTONIC), left_before = ns(spec.it_value);
    subject_hold();

    /* Whether setting the clock moves or cancels it. */
    char path[64], info[512];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    read_file(path, info, sizeof info);
    const char *told = strstr(info, "settime flags: ");
    CHECK(!real || (told && strtol(told + 15, NULL, 8) == flags), "flags %d are now: %s", flags, info);
    int64_t elapsed = now_ns(CLOCK_MONOTONIC) - start + 20 * NS_PER_MS;
    SYS(timerfd_gettime(fd, &now));
    CHECK_EQ(ns(now.it_interval), ns(spec.it_interval));
    struct pollfd poll_fd = {fd, POLLIN, 0};
    if (variant("pending")) {
        CHECK_EQ(poll(&poll_fd, 1, 0), 1);
        CHECK_EQ(read(fd, &count, 8), 8);
        CHECK(count >= 6 && count <= (uint64_t)(elapsed / (5 * NS_PER_MS)) + 20, "%lu expirations", count);
        CHECK_EQ(poll(&poll_fd, 1, 1000), 1); /* and it goes on */
    } else {
        int64_t left = ns(now.it_value);
        CHECK(left <= left_before && left >= left_before - elapsed, "%ld ns left, had %ld, %ld ns ago", (long)left,
              (long)left_before, (long)elapsed);
        CHECK_EQ(left == 0, variant("disarmed"));
        CHECK(read(fd, &count, 8) < 0 && errno == EAGAIN, "an expiration from nowhere");
    }
    struct itimerspec soon = {{0, 0}, {0, NS_PER_MS}};
    SYS(timerfd_settime(fd, 0, &soon, NULL));
    CHECK_EQ(poll(&poll_fd, 1, 1000), 1);
    CHECK_EQ(read(fd, &count, 8), 8);
    CHECK_EQ(count, 1);
    subject_pass();
}
