/* Variants counter, semaphore, zero, full: the count of an eventfd, how it is read, and that it still counts. */
#include "subject.h"
#include <sys/eventfd.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    bool semaphore = variant("semaphore");
    uint64_t count = variant("full") ? UINT64_MAX - 1 : variant("zero") ? 0 : 0x123456789aull;
    int fd = SYS(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC | (semaphore ? EFD_SEMAPHORE : 0)));
    if (semaphore)
        count = 3;
    if (count)
        SYS(write(fd, &count, 8));
    int second = SYS(dup(fd));
    subject_hold();
    uint64_t seen, one = 1;
    if (variant("full"))
        CHECK(write(fd, &one, 8) < 0 && errno == EAGAIN, "the full eventfd takes more");
    for (int i = 0; semaphore && i < 3; i++) {
        CHECK_EQ(read(second, &seen, 8), 8);
        CHECK_EQ(seen, 1);
    }
    if (!semaphore && count) {
        CHECK_EQ(read(second, &seen, 8), 8);
        CHECK(seen == count, "count is %lu, wanted %lu", seen, count);
    }
    CHECK(read(fd, &seen, 8) < 0 && errno == EAGAIN, "the eventfd is not empty");
    SYS(write(fd, &one, 8));
    SYS(write(second, &one, 8));
    CHECK_EQ(read(fd, &seen, 8), 8);
    CHECK_EQ(seen, semaphore ? 1 : 2);
    subject_pass();
}
