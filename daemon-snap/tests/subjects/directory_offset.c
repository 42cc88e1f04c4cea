/* An open directory that has been read half way gives exactly the other half. */
#include "subject.h"
#include <dirent.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    bool seen[200] = {false};
    SYS(mkdir(in_dir("many"), 0755));
    for (int i = 0; i < 200; i++) {
        char name[32];
        snprintf(name, sizeof name, "many/%03d", i);
        write_file(in_dir(name), "", 0);
    }
    int fd = SYS(open(in_dir("many"), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    char entries[1024];
    int count = 0;
    for (int round = 0; round < 200; round++) {
        long len = SYS(syscall(SYS_getdents64, fd, entries, sizeof entries));
        for (long at = 0; at < len; at += *(unsigned short *)(entries + at + 16)) {
            const char *name = entries + at + 19;
            if (name[0] == '.')
                continue;
            CHECK(!seen[atoi(name)], "%s comes twice", name);
            seen[atoi(name)] = true;
            count++;
        }
        if (round == 1) {
            CHECK(count > 5 && count < 150, "%d entries in two reads", count);
            subject_hold();
        }
        if (len == 0)
            break;
    }
    CHECK_EQ(count, 200);
    CHECK(openat(fd, "007", O_RDONLY | O_CLOEXEC) >= 0, "the directory is not the one that was open");
    subject_pass();
}
