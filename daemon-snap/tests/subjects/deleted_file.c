/* Variants disk, tmpfs: a file unlinked while open and mapped keeps content, size, offset and mode, and has no name;
 * parent and child share it. */
#include "subject.h"

static int fd;
static char *area;

static void child(void *unused)
{
    (void)unused;
    member_hold("child");
    check_filled(area, 4096, 1, "child's mapping");
    await_that(area[2 * 4096] == 'p');
    area[2 * 4096 + 1] = 'c';
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    const char *path = variant("tmpfs") ? in_shm("gone") : in_dir("gone");
    char kept[320];
    snprintf(kept, sizeof kept, "%s", path);
    fd = SYS(open(kept, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    SYS(ftruncate(fd, 5 * 4096 + 11));
    area = SYS(mmap(NULL, 5 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    fill(area, 4096, 1);
    SYS(pwrite(fd, "tail", 4, 5 * 4096 + 7));
    SYS(lseek(fd, 33, SEEK_SET));
    SYS(unlink(kept));
    pid_t pid = fork_member(child, NULL);
    await_member("child");
    subject_hold();

    struct stat status;
    char bytes[8];
    SYS(fstat(fd, &status));
    CHECK_EQ(status.st_nlink, 0);
    CHECK_EQ(status.st_size, 5 * 4096 + 11);
    CHECK_EQ(status.st_mode, S_IFREG | 0600);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 33);
    CHECK_EQ(pread(fd, bytes, 8, 5 * 4096 + 7), 4);
    CHECK(memcmp(bytes, "tail", 4) == 0, "tail is %.4s", bytes);
    check_filled(area, 4096, 1, "mapping");
    CHECK(access(kept, F_OK) < 0, "the file has a name again");
    SYS(pwrite(fd, "p", 1, 2 * 4096));
    await_that(area[2 * 4096 + 1] == 'c');
    CHECK_EQ(pread(fd, bytes, 2, 2 * 4096), 2);
    CHECK(memcmp(bytes, "pc", 2) == 0, "descriptor and mapping are not one file");
    reap(pid);
    subject_pass();
}
