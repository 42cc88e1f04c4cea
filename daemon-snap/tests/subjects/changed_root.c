/* A process that has changed its root stays inside, with a working directory and an open file in there. */
#include "subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    SYS(mkdir(in_dir("sub"), 0755));
    write_file(in_dir("sub/file"), "inside", 6);
    SYS(chroot(subject_dir));
    SYS(chdir("/sub"));
    strcpy(subject_dir, "/");
    int fd = SYS(open("/sub/file", O_RDONLY | O_CLOEXEC));
    subject_hold();
    char text[64];
    CHECK(access("/proc/self", F_OK) < 0, "the root is the machine's");
    CHECK_EQ(read_file("/sub/file", text, sizeof text), 6);
    CHECK_EQ(read_file("file", text, sizeof text), 6);
    SYS(getcwd(text, sizeof text) ? 0 : -1);
    CHECK(strcmp(text, "/sub") == 0, "working directory is %s", text);
    SYS(chdir("../.."));
    CHECK(access("sub/file", F_OK) == 0, "the way up leads out");
    CHECK_EQ(read(fd, text, sizeof text), 6);
    subject_pass();
}
