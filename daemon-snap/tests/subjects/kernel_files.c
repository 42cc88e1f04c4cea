/* Descriptors of /proc, /sys and namespaces are of today's kernel, and of this process where they were before. */
#include "subject.h"
#include <sched.h>
#include <sys/epoll.h>
#include <sys/mount.h>

static void expect(int fd, const char *text, const char *what)
{
    static char bytes[1 << 16];
    long len = pread(fd, bytes, sizeof bytes - 1, 0);
    CHECK(len > 0, "%s: %s", what, strerror(errno));
    bytes[len] = 0;
    CHECK(strstr(bytes, text) != NULL, "%s lacks %s", what, text);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int status = SYS(open("/proc/self/status", O_RDONLY | O_CLOEXEC));
    int again = SYS(dup(status));
    int thread = SYS(open("/proc/thread-self/stat", O_RDONLY | O_CLOEXEC));
    int meminfo = SYS(open("/proc/meminfo", O_RDONLY | O_CLOEXEC));
    int maps = SYS(open("/proc/self/maps", O_RDONLY));
    int memory = SYS(open("/proc/self/mem", O_RDWR | O_CLOEXEC));
    int descriptors = SYS(open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    int mounts = SYS(open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC));
    int network = SYS(open("/proc/net/dev", O_RDONLY | O_CLOEXEC));
    int setting = SYS(open("/proc/sys/kernel/ostype", O_RDONLY));
    int system = SYS(open("/sys/devices/system/cpu/online", O_RDONLY | O_CLOEXEC));
    int class = SYS(open("/sys/class", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    int net = SYS(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
    int uts = SYS(open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC));
    int epoll = SYS(epoll_create1(EPOLL_CLOEXEC));
    struct epoll_event event = {EPOLLPRI | EPOLLERR, {.u64 = 77}};
    SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, mounts, &event));
    char line[64], marker[32] = "marker in memory";
    CHECK_EQ(read(meminfo, line, 10), 10);
    CHECK_EQ(read(status, line, 5), 5);
    subject_hold();
    CHECK_EQ(lseek(meminfo, 0, SEEK_CUR), 10);
    CHECK_EQ(lseek(again, 0, SEEK_CUR), 5);
    snprintf(line, sizeof line, "\nPid:\t%d\n", getpid());
    expect(status, line, "/proc/self/status");
    expect(again, line, "its duplicate");
    snprintf(line, sizeof line, "%d (", getpid());
    expect(thread, line, "/proc/thread-self/stat");
    expect(meminfo, "MemTotal:", "/proc/meminfo");
    expect(maps, "[stack]", "/proc/self/maps");
    expect(mounts, " / ", "/proc/self/mountinfo");
    expect(network, "lo:", "/proc/net/dev");
    expect(setting, "Linux\n", "ostype");
    expect(system, "0", "online CPUs");
    CHECK_EQ(pwrite(memory, "MARKER", 6, (off_t)(long)marker), 6);
    CHECK(memcmp(marker, "MARKER in memory", 16) == 0, "/proc/self/mem is other memory: %s", marker);
    struct stat there;
    CHECK(fstatat(descriptors, "0", &there, 0) == 0, "the descriptor directory lacks 0");
    CHECK(fstatat(class, "net", &there, 0) == 0, "/sys/class lacks net");
    SYS(setns(net, CLONE_NEWNET));
    SYS(setns(uts, CLONE_NEWUTS));
    /* The table of mounts is everybody's: what a neighbour has mounted meanwhile is told once, and then nothing more. */
    if (epoll_wait(epoll, &event, 1, 0) == 1)
        CHECK_EQ(event.data.u64, 77);
    CHECK_EQ(epoll_wait(epoll, &event, 1, 0), 0);
    pid_t pid = SYS(fork()); /* a mount in a namespace of its own says nothing here */
    if (pid == 0)
        _exit(0);
    reap(pid);
    SYS(epoll_ctl(epoll, EPOLL_CTL_DEL, mounts, NULL));
    subject_pass();
}
