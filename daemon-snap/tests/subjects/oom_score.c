/* oom_score_adj and the core dump filter. */
#include "subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char text[32];
    write_file("/proc/self/oom_score_adj", "321", 3);
    write_file("/proc/self/coredump_filter", "0x7f", 4);
    subject_hold();
    read_file("/proc/self/oom_score_adj", text, sizeof text);
    CHECK_EQ(atoi(text), 321);
    read_file("/proc/self/coredump_filter", text, sizeof text);
    CHECK_EQ(strtol(text, NULL, 16), 0x7f);
    subject_pass();
}
