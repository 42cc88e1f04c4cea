/* Variants stream, dgram, seqpacket: a socket pair with unread data, its message borders, and traffic afterwards. */
#include "subject.h"
#include <sys/socket.h>

static int type;

static void expect(int fd, const char *wanted)
{
    char bytes[128];
    ssize_t got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
    CHECK(got == (ssize_t)strlen(wanted) && memcmp(bytes, wanted, got) == 0, "received %zd bytes %.*s, wanted %s", got,
          got > 0 ? (int)got : 0, bytes, wanted);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    type = variant("dgram") ? SOCK_DGRAM : variant("seqpacket") ? SOCK_SEQPACKET : SOCK_STREAM;
    int ends[2], widow[2], half[2], idle[2], bare[2], blank[2], last[2];
    SYS(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends));
    SYS(socketpair(AF_UNIX, type | SOCK_NONBLOCK, 0, widow));
    SYS(socketpair(AF_UNIX, type, 0, half));
    SYS(socketpair(AF_UNIX, type, 0, idle));
    SYS(socketpair(AF_UNIX, type, 0, bare));
    SYS(socketpair(AF_UNIX, type, 0, blank));
    SYS(socketpair(AF_UNIX, type, 0, last));
    if (type != SOCK_STREAM) {
        for (int i = 0; i < 2; i++)
            SYS(send(blank[0], "", 0, 0)), SYS(send(last[0], "", 0, 0)), SYS(send(blank[0], "filled", 6, 0));
        SYS(send(blank[0], "", 0, 0));
        SYS(send(last[0], "end", 3, 0));
        SYS(shutdown(last[0], SHUT_WR));
    }
    SYS(send(ends[0], "first", 5, 0));
    SYS(send(ends[0], "2nd", 3, 0));
    SYS(send(ends[1], "answer", 6, 0));
    static char big[60000], seen[60000];
    fill(big, sizeof big, 3);
    SYS(send(idle[0], big, sizeof big, 0));
    SYS(send(widow[1], "will", 4, 0));
    close(widow[1]);
    SYS(send(half[0], "before", 6, 0));
    SYS(shutdown(half[0], SHUT_WR));
    SYS(setsockopt(ends[0], SOL_SOCKET, SO_RCVLOWAT, &(int){1}, sizeof(int)));
    SYS(setsockopt(bare[0], SOL_SOCKET, SO_PASSCRED, &(int){1}, sizeof(int)));
    SYS(setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &(int){70000}, sizeof(int)));
    int sndbuf, passcred = 0, now;
    socklen_t len = sizeof(int);
    SYS(getsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &sndbuf, &len));
    subject_hold();

    if (type == SOCK_STREAM)
        expect(ends[1], "first2nd");
    else
        expect(ends[1], "first"), expect(ends[1], "2nd");
    if (type != SOCK_STREAM) {
        for (int i = 0; i < 2; i++)
            expect(blank[1], ""), expect(blank[1], "filled"), expect(last[1], "");
        expect(blank[1], "");
        CHECK(recv(blank[1], seen, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN, "more than was sent");
        expect(last[1], "end");
    }
    expect(ends[0], "answer");
    CHECK(recv(ends[0], seen, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN, "more than was sent");
    SYS(send(ends[0], "again", 5, 0));
    expect(ends[1], "again");
    CHECK_EQ(recv(idle[1], seen, sizeof seen, MSG_WAITALL), sizeof seen);
    check_filled(seen, sizeof seen, 3, "large message");
    expect(widow[0], "will");
    CHECK(send(widow[0], "x", 1, 0) < 0 && (errno == EPIPE || errno == ECONNREFUSED || errno == ECONNRESET),
          "the widow's peer lives");
    expect(half[1], "before");
    if (type != SOCK_DGRAM)
        expect(half[1], ""); /* end of file */
    CHECK(send(half[0], "x", 1, 0) < 0 && errno == EPIPE, "shutdown was undone");
    SYS(send(half[1], "other way", 9, 0));
    expect(half[0], "other way");
    SYS(getsockopt(bare[0], SOL_SOCKET, SO_PASSCRED, &passcred, &len));
    CHECK_EQ(passcred, 1);
    SYS(getsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &now, &len));
    CHECK_EQ(now, sndbuf);
    SYS(getsockopt(ends[1], SOL_SOCKET, SO_TYPE, &now, &len));
    CHECK_EQ(now, type);
    subject_pass();
}
