/* A named FIFO held open, empty, by parent and child: still the same FIFO to both and to who opens it by name. */
#include "subject.h"

static int reader, writer;

static void child(void *unused)
{
    (void)unused;
    close(reader);
    member_hold("child");
    SYS(write(writer, "child", 5));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    SYS(mkfifo(in_dir("fifo"), 0600));
    reader = SYS(open(in_dir("fifo"), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    writer = SYS(open(in_dir("fifo"), O_WRONLY | O_CLOEXEC));
    refusal_names("fd %d ", reader);
    refusal_names("fd %d ", writer);
    pid_t pid = fork_member(child, NULL);
    close(writer);
    await_member("child");
    subject_hold();
    char bytes[16] = "";
    reap(pid);
    CHECK_EQ(read(reader, bytes, sizeof bytes), 5);
    CHECK(memcmp(bytes, "child", 5) == 0, "read %.5s", bytes);
    CHECK_EQ(read(reader, bytes, 1), 0); /* no writer is left anywhere */
    int again = SYS(open(in_dir("fifo"), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
    SYS(write(again, "name", 4));
    CHECK_EQ(read(reader, bytes, sizeof bytes), 4);
    subject_pass();
}
