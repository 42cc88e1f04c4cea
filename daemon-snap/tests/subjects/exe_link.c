/* /proc/self/exe is the same file: also executable again, and with code that belongs to it. */
#include "subject.h"

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--answer") == 0)
        return 42;
    char before[512] = "", after[512] = "";
    struct stat old, new;
    subject_begin(argc, argv);
    SYS(readlink("/proc/self/exe", before, sizeof before - 1));
    SYS(stat("/proc/self/exe", &old));
    subject_hold();
    SYS(readlink("/proc/self/exe", after, sizeof after - 1));
    SYS(stat("/proc/self/exe", &new));
    CHECK(strcmp(before, after) == 0, "exe is %s, was %s", after, before);
    CHECK(old.st_ino == new.st_ino && old.st_dev == new.st_dev, "exe is another file");
    pid_t pid = SYS(fork());
    if (pid == 0) {
        execl("/proc/self/exe", "again", "--answer", NULL);
        _exit(1);
    }
    int status;
    SYS(waitpid(pid, &status, 0));
    CHECK_EQ(WEXITSTATUS(status), 42);
    subject_pass();
}
