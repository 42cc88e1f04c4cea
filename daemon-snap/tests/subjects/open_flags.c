/* Ways of opening: O_SYNC, O_DSYNC, O_DIRECT, O_NOATIME, O_APPEND, nameless files (O_TMPFILE) that can still be given a name, and a
 * file whose name is gone while another one stays. */
#include "subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int sync = SYS(open(in_dir("sync"), O_RDWR | O_CREAT | O_SYNC | O_CLOEXEC, 0600));
    int data = SYS(open(in_dir("data"), O_WRONLY | O_CREAT | O_DSYNC | O_APPEND | O_CLOEXEC, 0600));
    int direct = open(in_dir("sync"), O_RDWR | O_DIRECT | O_NOATIME | O_CLOEXEC);
    static char block[8192] __attribute__((aligned(4096)));
    SYS(write(sync, block, 4096));
    SYS(write(data, "line", 4));
    int nameless = SYS(open(subject_dir, O_RDWR | O_TMPFILE | O_APPEND | O_CLOEXEC, 0640));
    SYS(write(nameless, "nameless", 8));
    int only_written = SYS(open(subject_dir, O_WRONLY | O_TMPFILE | O_SYNC, 0600));
    SYS(write(only_written, "written", 7));
    char second[64];
    snprintf(second, sizeof second, "/proc/self/fd/%d", nameless);
    int reopened = SYS(open(second, O_RDONLY | O_CLOEXEC));
    SYS(lseek(nameless, 3, SEEK_SET));
    SYS(lseek(reopened, 5, SEEK_SET));
    write_file(in_dir("old-name"), "two names", 9);
    int renamed = SYS(open(in_dir("old-name"), O_RDWR | O_CLOEXEC));
    char *area = SYS(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, renamed, 0));
    SYS(link(in_dir("old-name"), in_dir("new-name")));
    SYS(unlink(in_dir("old-name")));
    int gone = SYS(open(in_dir("gone"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    SYS(write(gone, "gone", 4));
    SYS(unlink(in_dir("gone")));
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1000000000, .tv_nsec = 123456789}};
    SYS(futimens(gone, times));
    subject_hold();
    char bytes[32];
    CHECK_EQ(lseek(nameless, 0, SEEK_CUR), 3);
    CHECK_EQ(read(reopened, bytes, sizeof bytes), 3);
    SYS(write(nameless, "+", 1));
    CHECK_EQ(pread(reopened, bytes, sizeof bytes, 0), 9);
    CHECK(memcmp(bytes, "nameless+", 9) == 0, "the nameless file holds %.9s", bytes);
    CHECK(pread(only_written, bytes, 1, 0) < 0 && errno == EBADF, "a file opened for writing can be read");
    struct stat status;
    SYS(fstat(nameless, &status));
    CHECK_EQ(status.st_nlink, 0);
    CHECK_EQ(status.st_mode, S_IFREG | 0640);
    SYS(linkat(AT_FDCWD, second, AT_FDCWD, in_dir("named"), AT_SYMLINK_FOLLOW));
    CHECK_EQ(read_file(in_dir("named"), bytes, sizeof bytes), 9);
    CHECK_EQ(read_file(in_dir("new-name"), bytes, sizeof bytes), 9);
    area[0] = 'T';
    CHECK_EQ(pread(renamed, bytes, 1, 0), 1);
    CHECK_EQ(bytes[0], 'T');
    read_file(in_dir("new-name"), bytes, sizeof bytes);
    CHECK(memcmp(bytes, "Two names", 9) == 0, "the other name leads to another file");
    CHECK(access(in_dir("old-name"), F_OK) < 0, "the old name is back");
    SYS(fstat(renamed, &status));
    CHECK_EQ(status.st_nlink, 1);
    snprintf(second, sizeof second, "/proc/self/fd/%d", gone);
    CHECK(linkat(AT_FDCWD, second, AT_FDCWD, in_dir("gone"), AT_SYMLINK_FOLLOW) < 0, "a deleted file can be given a name");
    SYS(fstat(gone, &status));
    CHECK_EQ(status.st_mtim.tv_sec, 1000000000);
    CHECK_EQ(status.st_mtim.tv_nsec, 123456789);
    SYS(write(data, "+", 1));
    CHECK_EQ(read_file(in_dir("data"), bytes, sizeof bytes), 5);
    if (direct >= 0) {
        CHECK_EQ(pread(direct, block, 4096, 0), 4096);
        CHECK(pread(direct, block + 1, 100, 0) < 0 && errno == EINVAL, "O_DIRECT is not in force");
    }
    subject_pass();
}
