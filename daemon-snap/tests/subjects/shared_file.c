/* Variants disk, tmpfs: a shared mapping of a file writes into that file afterwards; descriptor and mapping agree. */
#include "subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    const char *path = variant("tmpfs") ? in_shm("data") : in_dir("data");
    char kept[320];
    snprintf(kept, sizeof kept, "%s", path);
    int fd = SYS(open(kept, O_RDWR | O_CREAT | O_CLOEXEC, 0640));
    SYS(ftruncate(fd, 10 * 4096));
    char *area = SYS(mmap(NULL, 10 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    char *reader = SYS(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 4096));
    fill(area, 3 * 4096, 1);
    SYS(lseek(fd, 4096, SEEK_SET));
    subject_hold();

    char bytes[4096];
    check_filled(area, 3 * 4096, 1, "mapping");
    check_zero(area + 3 * 4096, 7 * 4096, "hole");
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 4096);
    SYS(read(fd, bytes, sizeof bytes));
    CHECK(memcmp(bytes, area + 4096, 4096) == 0, "descriptor and mapping differ");
    fill(area + 4096, 4096, 2);
    check_filled(reader, 4096, 2, "read-only mapping of the same page");
    int again = SYS(open(kept, O_RDONLY | O_CLOEXEC));
    SYS(pread(again, bytes, sizeof bytes, 4096));
    check_filled(bytes, 4096, 2, "file opened again by its path");
    struct stat a, b;
    SYS(fstat(fd, &a));
    SYS(fstat(again, &b));
    CHECK(a.st_ino == b.st_ino && a.st_dev == b.st_dev, "the path leads to another file than the descriptor");
    CHECK_EQ(a.st_mode & 07777, 0640);
    CHECK_EQ(a.st_size, 10 * 4096);
    CHECK(mprotect(reader, 4096, PROT_READ | PROT_WRITE) == 0, "opened read-write, but the mapping cannot be: %m");
    subject_pass();
}
