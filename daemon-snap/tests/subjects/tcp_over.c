/* TCP sockets at the end of their connection, with bytes that nobody has read yet: reading gives them, then what it gave before.
 * Variants closed (both ends have closed their direction), reset, reset_unread, drained. */
#include "subject.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int listener = SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(bind(listener, (void *)&address, sizeof address));
    SYS(listen(listener, 1));
    SYS(getsockname(listener, (void *)&address, &len));
    int fd = SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(connect(fd, (void *)&address, sizeof address));
    int peer = SYS(accept(listener, NULL, NULL));
    close(listener);
    bool reset = strncmp(subject_variant, "reset", 5) == 0, unread = !variant("reset") && !variant("drained");
    char bytes[16];
    SYS(send(peer, "last words", 10, 0));
    await_that(recv(fd, bytes, 10, MSG_PEEK | MSG_DONTWAIT) == 10);
    if (!unread)
        CHECK_EQ(read(fd, bytes, sizeof bytes), 10);
    if (reset) {
        struct linger at_once = {1, 0};
        SYS(setsockopt(peer, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once));
    }
    close(peer);
    struct pollfd seen = {fd, POLLIN | POLLOUT | POLLRDHUP, 0};
    await_that(poll(&seen, 1, 0) == 1 && seen.revents & POLLRDHUP);
    if (!reset) {
        SYS(shutdown(fd, SHUT_WR));
        await_that(poll(&seen, 1, 0) == 1 && seen.revents & POLLHUP);
    }
    struct pollfd before = seen;
    /* What lies before the place of the next peek is unread all the same (TCP has it since Linux 6.9). */
    if (setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &(int){3}, sizeof(int)) < 0)
        CHECK_EQ(errno, EOPNOTSUPP);
    subject_hold();
    SYS(poll(&seen, 1, 0));
    CHECK_EQ(seen.revents, before.revents);
    if (unread) {
        CHECK_EQ(read(fd, bytes, sizeof bytes), 10);
        CHECK(memcmp(bytes, "last words", 10) == 0, "read gives %.10s", bytes);
    }
    if (reset)
        CHECK(read(fd, bytes, sizeof bytes) < 0 && errno == ECONNRESET, "read says %s", strerror(errno));
    CHECK_EQ(SYS(read(fd, bytes, sizeof bytes)), 0);
    CHECK(send(fd, "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE, "write says %s", strerror(errno));
    CHECK(getpeername(fd, (void *)&address, &len) < 0 && errno == ENOTCONN, "getpeername says %s", strerror(errno));
    subject_pass();
}
