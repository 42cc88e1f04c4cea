/* Descriptors in flight: in no table, or in ours too; sockets among them, with messages of their own. Variants: type. */
#include "rights.h"
#include <sys/eventfd.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int type = variant("stream") ? SOCK_STREAM : variant("dgram") ? SOCK_DGRAM : SOCK_SEQPACKET;
    int outer[2], inner[2], ends[2], fds[16], got[16];
    char bytes[64];
    SYS(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, outer));
    SYS(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, inner));
    SYS(pipe2(ends, O_CLOEXEC));
    write_file(in_dir("data"), "0123456789", 10);
    int file = SYS(open(in_dir("data"), O_RDONLY | O_CLOEXEC)), counter = SYS(eventfd(41, EFD_CLOEXEC));
    SYS(lseek(file, 4, SEEK_SET));

    send_fds(outer[0], "plain", 0, NULL);
    fds[0] = file; /* ours too: one offset */
    fds[1] = ends[0]; /* in no table */
    send_fds(outer[0], "two", 2, fds);
    send_fds(outer[0], "between", 0, NULL);
    fds[0] = counter;
    send_fds(inner[0], "deep", 1, fds);
    fds[0] = inner[1]; /* with the message in its queue */
    fds[1] = outer[0]; /* the sender itself */
    send_fds(outer[0], "nested", 2, fds);
    close(ends[0]);
    close(counter);
    close(inner[1]);
    subject_hold();

    int dirt = SYS(dup(file));
    close(dirt);
    if (type == SOCK_STREAM) {
        CHECK_EQ(receive_fds(outer[1], bytes, sizeof bytes, got, NULL), 2);
        CHECK(strcmp(bytes, "plaintwo") == 0, "with the first descriptors came %s", bytes);
    } else {
        CHECK_EQ(receive_fds(outer[1], bytes, sizeof bytes, got, NULL), 0);
        CHECK(strcmp(bytes, "plain") == 0, "first came %s", bytes);
        CHECK_EQ(receive_fds(outer[1], bytes, sizeof bytes, got, NULL), 2);
        CHECK(strcmp(bytes, "two") == 0, "then came %s", bytes);
    }
    CHECK_EQ(SYS(lseek(got[0], 1, SEEK_CUR)), 5);
    CHECK_EQ(SYS(lseek(file, 0, SEEK_CUR)), 5);
    SYS(write(ends[1], "pipe", 4));
    CHECK_EQ(SYS(read(got[1], bytes, sizeof bytes)), 4);
    if (type == SOCK_STREAM) {
        CHECK_EQ(receive_fds(outer[1], bytes, sizeof bytes, got, NULL), 2);
        CHECK(strcmp(bytes, "betweennested") == 0, "last came %s", bytes);
    } else {
        CHECK_EQ(receive_fds(outer[1], bytes, sizeof bytes, got, NULL), 0);
        CHECK(strcmp(bytes, "between") == 0, "between came %s", bytes);
        CHECK_EQ(receive_fds(outer[1], bytes, sizeof bytes, got, NULL), 2);
        CHECK(strcmp(bytes, "nested") == 0, "last came %s", bytes);
    }
    int deep[16];
    CHECK_EQ(receive_fds(got[0], bytes, sizeof bytes, deep, NULL), 1);
    CHECK(strcmp(bytes, "deep") == 0, "in the depth was %s", bytes);
    uint64_t count = 0;
    SYS(read(deep[0], &count, sizeof count));
    CHECK_EQ(count, 41);
    SYS(send(got[1], "again", 5, 0));
    CHECK_EQ(recv(outer[1], bytes, sizeof bytes, MSG_DONTWAIT), 5);
    SYS(send(inner[0], "alive", 5, 0));
    CHECK_EQ(recv(got[0], bytes, sizeof bytes, MSG_DONTWAIT), 5);
    subject_pass();
}
