/* Open files of /proc and /sys answer for today: own status, a kernel setting, the own descriptor directory. */
#include "subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int status = SYS(open("/proc/self/status", O_RDONLY | O_CLOEXEC));
    int setting = SYS(open("/proc/sys/kernel/ostype", O_RDONLY));
    int directory = SYS(open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    int cpus = SYS(open("/sys/devices/system/cpu/online", O_RDONLY | O_CLOEXEC));
    subject_hold();
    char text[4096] = "", wanted[64];
    SYS(pread(status, text, sizeof text - 1, 0));
    snprintf(wanted, sizeof wanted, "\nPid:\t%d\n", getpid());
    CHECK(strstr(text, wanted) != NULL, "/proc/self/status is of another process");
    SYS(pread(setting, text, 6, 0));
    CHECK(memcmp(text, "Linux\n", 6) == 0, "ostype reads %.6s", text);
    struct stat own;
    CHECK(fstatat(directory, "0", &own, 0) == 0, "the descriptor directory lacks 0");
    CHECK(pread(cpus, text, 16, 0) > 0 && text[0] == '0', "online CPUs read %.8s", text);
    subject_pass();
}
