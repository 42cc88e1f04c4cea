/* Connections inside the tree of which one direction is closed. Variants v4, v6; full (there is no room for what was sent before, so the other end has not heard of
 * it); reading (an end that takes nothing more, which the other end cannot know). */
#include "subject.h"
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static int client, server;

static int state_of(int fd)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof info;
    SYS(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len));
    return info.tcpi_state;
}

static int events_of(int fd)
{
    struct pollfd entry = {fd, POLLIN | POLLOUT | POLLRDHUP, 0};
    SYS(poll(&entry, 1, 0));
    return entry.revents;
}

static void expect(int fd, const char *text)
{
    char bytes[64] = "";
    size_t used = 0;
    while (used < strlen(text)) {
        ssize_t got = SYS(recv(fd, bytes + used, strlen(text) - used, 0));
        CHECK(got > 0, "end of file after %zu bytes", used);
        used += got;
    }
    CHECK(strcmp(bytes, text) == 0, "received %s, wanted %s", bytes, text);
}

static void expect_end(int fd)
{
    char byte;
    CHECK_EQ(recv(fd, &byte, 1, MSG_DONTWAIT), 0);
}

static size_t fill_up(int fd)
{
    static char bytes[65536];
    size_t sent = 0;
    for (;;) {
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (char)((sent + i) * 31 >> 3);
        ssize_t got = send(fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got < 0 && (nap_ms(20), got = send(fd, bytes, sizeof bytes, MSG_DONTWAIT)) < 0)
            return sent;
        sent += got;
    }
}

static void read_all(int fd, size_t len)
{
    static char bytes[65536];
    for (size_t used = 0; used < len;) {
        ssize_t got = SYS(recv(fd, bytes, sizeof bytes, 0));
        CHECK(got > 0, "end of file after %zu of %zu bytes", used, len);
        for (ssize_t i = 0; i < got; i++)
            CHECK(bytes[i] == (char)((used + i) * 31 >> 3), "byte %zu is wrong", used + i);
        used += got;
    }
}

static void closed_writing(void)
{
    int epoll = SYS(epoll_create1(EPOLL_CLOEXEC));
    struct epoll_event event = {EPOLLIN | EPOLLRDHUP, {.u64 = 7}};
    SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, server, &event));
    SYS(send(client, "last words", 10, 0));
    SYS(shutdown(client, SHUT_WR));
    SYS(send(server, "unread", 6, 0));
    nap_ms(10);
    CHECK_EQ(state_of(client), 5); /* TCP_FIN_WAIT2 */
    CHECK_EQ(state_of(server), 8); /* TCP_CLOSE_WAIT */
    int events[2] = {events_of(client), events_of(server)};
    subject_hold();
    CHECK_EQ(state_of(client), 5);
    CHECK_EQ(state_of(server), 8);
    CHECK_EQ(events_of(client), events[0]);
    CHECK_EQ(events_of(server), events[1]);
    CHECK_EQ(epoll_wait(epoll, &event, 1, 0), 1);
    CHECK_EQ(event.events, EPOLLIN | EPOLLRDHUP);
    CHECK(send(client, "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE, "the closed direction is open");
    expect(client, "unread");
    expect(server, "last words");
    expect_end(server);
    size_t sent = fill_up(server);
    read_all(client, sent);
    SYS(send(server, "bye", 3, 0));
    SYS(close(server));
    expect(client, "bye");
    expect_end(client);
    CHECK_EQ(state_of(client), 7); /* TCP_CLOSE */
}

static void closed_behind_data(void)
{
    size_t sent = fill_up(client);
    SYS(shutdown(client, SHUT_WR));
    nap_ms(10);
    CHECK_EQ(state_of(client), 4); /* TCP_FIN_WAIT1 */
    CHECK_EQ(state_of(server), 1);
    subject_hold();
    CHECK(state_of(client) == 4 || state_of(client) == 5, "state %d", state_of(client)); /* it may arrive meanwhile */
    CHECK(send(client, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno == EPIPE, "the closed direction is open");
    read_all(server, sent);
    await_that(events_of(server) & POLLRDHUP);
    expect_end(server);
    SYS(send(server, "answer", 6, 0));
    expect(client, "answer");
    await_that(state_of(client) == 5);
}

static void closed_reading(void)
{
    SYS(send(server, "unread", 6, 0));
    SYS(shutdown(client, SHUT_RD));
    subject_hold();
    CHECK_EQ(state_of(client), 1);
    CHECK_EQ(events_of(client), POLLIN | POLLOUT | POLLRDHUP);
    CHECK_EQ(events_of(server), POLLOUT);
    expect(client, "unread");
    expect_end(client);
    SYS(send(client, "still", 5, 0));
    expect(server, "still");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    bool v6 = variant("v6");
    struct sockaddr_in6 address6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    struct sockaddr_in address4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr *address = v6 ? (void *)&address6 : (void *)&address4;
    socklen_t len = v6 ? sizeof address6 : sizeof address4;
    int listener = SYS(socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(bind(listener, address, len));
    SYS(listen(listener, 5));
    SYS(getsockname(listener, address, &len));
    client = SYS(socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(connect(client, address, len));
    server = SYS(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
    SYS(send(client, "history", 7, 0));
    expect(server, "history");
    if (variant("full"))
        closed_behind_data();
    else if (variant("reading"))
        closed_reading();
    else
        closed_writing();
    subject_pass();
}
