/* A pipe in packet mode (O_DIRECT) keeps the borders of its packets. */
#include "subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int ends[2];
    SYS(pipe2(ends, O_DIRECT | O_NONBLOCK | O_CLOEXEC));
    SYS(write(ends[1], "one", 3));
    SYS(write(ends[1], "second", 6));
    SYS(write(ends[1], "3", 1));
    refusal_names("fd %d ", ends[1]);
    subject_hold();
    char bytes[64];
    CHECK_EQ(read(ends[0], bytes, sizeof bytes), 3);
    CHECK_EQ(read(ends[0], bytes, 2), 2); /* the rest of this packet is dropped */
    CHECK(memcmp(bytes, "se", 2) == 0, "second packet begins with %.2s", bytes);
    CHECK_EQ(read(ends[0], bytes, sizeof bytes), 1);
    CHECK(read(ends[0], bytes, 1) < 0 && errno == EAGAIN, "a packet too many");
    SYS(write(ends[1], "aa", 2));
    SYS(write(ends[1], "bbb", 3));
    CHECK_EQ(read(ends[0], bytes, sizeof bytes), 2);
    CHECK_EQ(read(ends[0], bytes, sizeof bytes), 3);
    subject_pass();
}
