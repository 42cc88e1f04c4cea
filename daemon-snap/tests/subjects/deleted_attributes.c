/* Variants disk, tmpfs, memfd: what a file without a name has beside content: owner, set-ids, extended attributes, times. */
#include "subject.h"
#include <sys/xattr.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char path[320];
    snprintf(path, sizeof path, "%s", variant("tmpfs") ? in_shm("gone") : in_dir("gone"));
    int fd = variant("memfd") ? SYS(memfd_create("gone", MFD_CLOEXEC))
                              : SYS(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    SYS(write(fd, "data", 4));
    const char *names[] = {"user.origin", "trusted.origin"};
    bool kept[2];
    for (int i = 0; i < 2; i++)
        kept[i] = fsetxattr(fd, names[i], "abc", 3, 0) == 0;
    CHECK(kept[0] || kept[1] || variant("memfd"), "no extended attributes");
    SYS(fchown(fd, 1000, 1001));
    SYS(fchmod(fd, 06755));
    struct timespec times[2] = {{1000000001, 5}, {1000000002, 7}};
    SYS(futimens(fd, times));
    if (!variant("memfd"))
        SYS(unlink(path));
    subject_hold();
    struct stat status;
    SYS(fstat(fd, &status));
    CHECK_EQ(status.st_uid, 1000);
    CHECK_EQ(status.st_gid, 1001);
    CHECK_EQ(status.st_mode, S_IFREG | 06755);
    CHECK_EQ(status.st_atim.tv_sec, 1000000001);
    CHECK_EQ(status.st_mtim.tv_sec, 1000000002);
    CHECK_EQ(status.st_mtim.tv_nsec, 7);
    for (int i = 0; i < 2; i++) {
        char value[8];
        if (kept[i])
            CHECK(fgetxattr(fd, names[i], value, sizeof value) == 3 && memcmp(value, "abc", 3) == 0, "%s is lost", names[i]);
    }
    char bytes[8];
    CHECK_EQ(pread(fd, bytes, sizeof bytes, 0), 4);
    subject_pass();
}
