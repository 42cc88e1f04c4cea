/* Watches on what a dump and a restore have to read: deleted, mapped, locked and open files, directories, FIFOs. Nothing has happened to
 * them. */
#include "subject.h"
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/un.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    SYS(mkdir(in_dir("d"), 0755));
    int open_file = SYS(open(in_dir("d/open"), O_CREAT | O_RDWR | O_CLOEXEC, 0644));
    int mapped = SYS(open(in_dir("d/mapped"), O_CREAT | O_RDWR | O_CLOEXEC, 0644));
    SYS(ftruncate(mapped, 8192));
    char *area = SYS(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, mapped, 0));
    area[0] = 1;
    close(mapped);
    int gone = SYS(open(in_dir("d/gone"), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    SYS(ftruncate(gone, 1 << 20));
    SYS(pwrite(gone, "far", 3, 600000));
    SYS(lseek(gone, 1234, SEEK_SET));
    SYS(unlink(in_dir("d/gone")));
    int locked = SYS(open(in_dir("d/locked"), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    SYS(flock(locked, LOCK_EX));
    SYS(mkfifo(in_dir("d/fifo"), 0600));
    SYS(open(in_dir("d/fifo"), O_RDWR | O_NONBLOCK | O_CLOEXEC));
    SYS(open(in_dir("d"), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    int volatile_file = SYS(open(in_shm("kept"), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    SYS(write(volatile_file, "v", 1));
    int fd = SYS(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    const char *paths[] = {"d", "d/open", "d/mapped", "d/locked", "d/fifo"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        SYS(inotify_add_watch(fd, in_dir(paths[i]), IN_ALL_EVENTS));
    SYS(inotify_add_watch(fd, in_shm("kept"), IN_ALL_EVENTS));
    subject_hold();
    char buffer[4096] __attribute__((aligned(8)));
    ssize_t got = read(fd, buffer, sizeof buffer);
    if (got > 0) {
        struct inotify_event *event = (void *)buffer;
        subject_fail(__FILE__, __LINE__, "watch %d has an event 0x%x %s", event->wd, event->mask, event->len ? event->name : "");
    }
    CHECK(got < 0 && errno == EAGAIN, "read gives %zd", got);
    CHECK_EQ(lseek(gone, 0, SEEK_CUR), 1234);
    char bytes[4] = "";
    CHECK_EQ(pread(gone, bytes, 3, 600000), 3);
    CHECK(memcmp(bytes, "far", 3) == 0, "the deleted file has %s", bytes);
    SYS(pwrite(open_file, "x", 1, 0));
    CHECK(read(fd, buffer, sizeof buffer) > 0, "the watch is lost");
    subject_pass();
}
