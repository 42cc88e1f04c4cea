/* Regular files: offset, access mode, append, direct and synchronous flags, and the same file behind the path. */
#include "subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char content[10000], seen[10001];
    memset(content, 'a', sizeof content);
    for (int i = 0; i < 10000; i += 100)
        content[i] = 'A' + i / 100 % 26;
    write_file(in_dir("log"), content, sizeof content);
    write_file(in_dir("appended"), "one\n", 4);
    int reader = SYS(open(in_dir("log"), O_RDONLY));
    int both = SYS(open(in_dir("log"), O_RDWR | O_CLOEXEC));
    int append = SYS(open(in_dir("appended"), O_WRONLY | O_APPEND | O_CLOEXEC));
    int sync = SYS(open(in_dir("log"), O_RDWR | O_DSYNC | O_NOATIME | O_NONBLOCK));
    SYS(lseek(reader, 1234, SEEK_SET));
    SYS(lseek(both, 20000, SEEK_SET)); /* beyond the end */
    subject_hold();

    CHECK_EQ(lseek(reader, 0, SEEK_CUR), 1234);
    CHECK_EQ(lseek(both, 0, SEEK_CUR), 20000);
    CHECK_EQ(lseek(sync, 0, SEEK_CUR), 0);
    CHECK_EQ(read(reader, seen, 100), 100);
    CHECK(memcmp(seen, content + 1234, 100) == 0, "read from the wrong place");
    CHECK(write(reader, "x", 1) < 0 && errno == EBADF, "the read-only descriptor can be written");
    int other = SYS(open(in_dir("appended"), O_WRONLY | O_APPEND | O_CLOEXEC));
    SYS(write(other, "two\n", 4));
    SYS(write(append, "three\n", 6));
    CHECK_EQ(read_file(in_dir("appended"), seen, sizeof seen), 14);
    CHECK(strcmp(seen, "one\ntwo\nthree\n") == 0, "file is %s", seen);
    SYS(write(both, "end", 3));
    struct stat status;
    SYS(stat(in_dir("log"), &status));
    CHECK_EQ(status.st_size, 20003);
    int flags = fcntl(sync, F_GETFL);
    CHECK_EQ(flags & (O_ACCMODE | O_DSYNC | O_NOATIME | O_NONBLOCK | O_APPEND),
             O_RDWR | O_DSYNC | O_NOATIME | O_NONBLOCK);
    subject_pass();
}
