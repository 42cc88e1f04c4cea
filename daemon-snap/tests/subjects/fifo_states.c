/* Named FIFOs in every state: with content, with only one end open, with packets, resized, hung up, of another owner, and, on a
 * tmpfs, gone with the reboot. */
#include "subject.h"
#include <poll.h>

static const char *place;

static char *path_of(const char *name)
{
    return in_dir_of(place, name);
}

static short events(int fd)
{
    struct pollfd entry = {.fd = fd, .events = POLLIN | POLLOUT};
    SYS(poll(&entry, 1, 0));
    return entry.revents;
}

static int make(const char *name, int flags)
{
    SYS(mkfifo(path_of(name), 0640));
    return SYS(open(path_of(name), flags | O_NONBLOCK | O_CLOEXEC));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    place = variant("tmpfs") ? subject_shm_dir : subject_dir;
    char bytes[64];
    int full = make("full", O_RDWR);
    SYS(fcntl(full, F_SETPIPE_SZ, 1 << 17));
    SYS(write(full, "some content", 12));
    int waiting = make("waiting", O_RDONLY);
    SYS(chown(path_of("waiting"), 1234, 4321));
    int left = make("left", O_RDONLY);
    int writer = SYS(open(path_of("left"), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
    SYS(write(writer, "last", 4));
    close(writer);
    int reader = make("alone", O_RDONLY);
    int alone = SYS(open(path_of("alone"), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
    SYS(write(alone, "unread", 6));
    close(reader);
    int packets = make("packets", O_RDWR);
    SYS(fcntl(packets, F_SETFL, O_RDWR | O_NONBLOCK | O_DIRECT));
    SYS(write(packets, "one", 3));
    SYS(write(packets, "three", 5));
    short waiting_events = events(waiting), left_events = events(left), alone_events = events(alone);
    CHECK(!(waiting_events & POLLHUP) && (left_events & POLLHUP) && (alone_events & POLLERR), "polling FIFOs gives 0x%x 0x%x 0x%x",
          waiting_events, left_events, alone_events);
    subject_hold();
    CHECK_EQ(events(waiting), waiting_events);
    CHECK_EQ(events(left), left_events);
    CHECK_EQ(events(alone), alone_events);
    CHECK_EQ(fcntl(full, F_GETPIPE_SZ), 1 << 17);
    CHECK_EQ(read(full, bytes, sizeof bytes), 12);
    CHECK(memcmp(bytes, "some content", 12) == 0, "the FIFO holds %.12s", bytes);
    struct stat status;
    SYS(stat(path_of("waiting"), &status));
    CHECK_EQ(status.st_mode, S_IFIFO | 0640);
    CHECK_EQ(status.st_uid, 1234);
    CHECK_EQ(status.st_gid, 4321);
    CHECK_EQ(read(waiting, bytes, sizeof bytes), 0);
    writer = SYS(open(path_of("waiting"), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
    SYS(write(writer, "come", 4));
    CHECK_EQ(read(waiting, bytes, sizeof bytes), 4);
    CHECK_EQ(read(left, bytes, sizeof bytes), 4);
    CHECK_EQ(read(left, bytes, sizeof bytes), 0);
    reader = SYS(open(path_of("alone"), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    CHECK_EQ(read(reader, bytes, sizeof bytes), 6);
    SYS(write(alone, "more", 4));
    CHECK_EQ(read(reader, bytes, sizeof bytes), 4);
    CHECK_EQ(read(packets, bytes, sizeof bytes), 3);
    CHECK_EQ(read(packets, bytes, sizeof bytes), 5);
    SYS(write(packets, "a", 1));
    SYS(write(packets, "b", 1));
    CHECK_EQ(read(packets, bytes, sizeof bytes), 1);
    subject_pass();
}
