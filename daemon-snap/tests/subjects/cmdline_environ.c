/* /proc/self/cmdline and environ show this process's own memory: arguments rewritten in place stay rewritten. */
#include "subject.h"
extern char **environ;

int main(int argc, char **argv)
{
    char before[8192], after[8192];
    subject_begin(argc, argv);
    CHECK(environ[0] != NULL, "needs an environment");
    CHECK(getenv("SUBJECT_MARK") != NULL, "SUBJECT_MARK is not set");
    argv[0][strlen(argv[0]) - 1] = '!'; /* as daemons that set a title do */
    long len = read_file("/proc/self/cmdline", before, sizeof before);
    subject_hold();
    CHECK_EQ(read_file("/proc/self/cmdline", after, sizeof after), len);
    CHECK(memcmp(before, after, len) == 0, "cmdline differs: %s", after);
    CHECK_EQ(after[strlen(argv[0]) - 1], '!');
    argv[0][0] = '?'; /* still the same memory */
    read_file("/proc/self/cmdline", after, sizeof after);
    CHECK_EQ(after[0], '?');
    CHECK(strcmp(getenv("SUBJECT_MARK"), "set by the harness") == 0, "SUBJECT_MARK is %s", getenv("SUBJECT_MARK"));
    read_file("/proc/self/environ", after, sizeof after);
    bool found = false;
    for (char *at = after; *at; at += strlen(at) + 1)
        found |= strcmp(at, "SUBJECT_MARK=set by the harness") == 0;
    CHECK(found, "environ lacks SUBJECT_MARK");
    subject_pass();
}
