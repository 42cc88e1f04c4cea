/* umask and working directory hold for what is created afterwards. */
#include "subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    SYS(mkdir(in_dir("here"), 0755));
    SYS(chdir(in_dir("here")));
    umask(0137);
    char before[320], after[320];
    SYS(getcwd(before, sizeof before) ? 0 : -1);
    publish("warm", ""); /* the umask applies to the protocol's files too */
    subject_hold();
    SYS(getcwd(after, sizeof after) ? 0 : -1);
    CHECK(strcmp(before, after) == 0, "working directory is %s, was %s", after, before);
    write_file("relative", "x", 1);
    struct stat status;
    SYS(stat(in_dir("here/relative"), &status));
    CHECK_EQ(status.st_mode & 07777, 0640);
    CHECK_EQ(umask(0), 0137);
    subject_pass();
}
