/* Pipes: unread bytes, capacity, nonblocking flag, end of file after the last writer, EPIPE after the last reader. */
#include "subject.h"

static void nonblocking_read_is(int fd, const char *wanted)
{
    char bytes[64];
    ssize_t got = read(fd, bytes, sizeof bytes);
    CHECK(got == (ssize_t)strlen(wanted) && memcmp(bytes, wanted, got) == 0, "read %zd bytes %.*s, wanted %s", got,
          got > 0 ? (int)got : 0, bytes, wanted);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    int full[2], empty[2], no_writer[2], no_reader[2], big[2], duplex;
    SYS(pipe2(full, O_NONBLOCK | O_CLOEXEC));
    SYS(fcntl(full[1], F_SETPIPE_SZ, 8192));
    static char chunk[4096], seen[4096];
    fill(chunk, sizeof chunk, 1);
    ssize_t written = 0, got;
    while ((got = write(full[1], chunk, 4096)) > 0)
        written += got;
    SYS(pipe(empty));
    SYS(pipe2(no_writer, O_CLOEXEC));
    SYS(write(no_writer[1], "last words", 10));
    close(no_writer[1]);
    SYS(pipe2(no_reader, O_CLOEXEC));
    close(no_reader[0]);
    SYS(pipe2(big, 0));
    SYS(fcntl(big[0], F_SETPIPE_SZ, 1 << 20));
    for (int i = 0; i < 150; i++)
        SYS(write(big[1], chunk, 4000));
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", empty[0]);
    duplex = SYS(open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC));
    subject_hold();

    CHECK_EQ(fcntl(full[0], F_GETPIPE_SZ), 8192);
    CHECK(write(full[1], "x", 1) < 0 && errno == EAGAIN, "the full pipe takes more");
    for (ssize_t at = 0; at < written; at += 4096) {
        CHECK_EQ(read(full[0], seen, 4096), 4096);
        check_filled(seen, 4096, 1, "full pipe");
    }
    CHECK(read(full[0], seen, 1) < 0 && errno == EAGAIN, "the pipe holds more than was written");
    SYS(write(empty[1], "through", 7));
    nonblocking_read_is(empty[0], "through");
    SYS(write(duplex, "both ways", 9));
    nonblocking_read_is(duplex, "both ways");
    CHECK(!(fcntl(empty[0], F_GETFL) & O_NONBLOCK), "O_NONBLOCK spread to another description");
    nonblocking_read_is(no_writer[0], "last words");
    nonblocking_read_is(no_writer[0], "");
    CHECK(write(no_reader[1], "x", 1) < 0 && errno == EPIPE, "somebody holds the read end of the widowed pipe");
    CHECK_EQ(fcntl(big[1], F_GETPIPE_SZ), 1 << 20);
    for (int i = 0; i < 150; i++) {
        CHECK_EQ(read(big[0], seen, 4000), 4000);
        CHECK(memcmp(seen, chunk, 4000) == 0, "chunk %d of the big pipe differs", i);
    }
    subject_pass();
}
