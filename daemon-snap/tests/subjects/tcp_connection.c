/* Connections inside the tree: data in both directions, unread and not yet sent; sequence numbers, agreements, options.
 * Variants v4, v6, mapped (IPv6 server, IPv4 client), full (the receiver's window is closed), fork (the ends belong to two
 * processes). */
#include "subject.h"
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define MANY (3 << 20)

static int client, server, listener, epoll;

static int get(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    SYS(getsockopt(fd, level, name, &value, &len));
    return value;
}

static struct tcp_info info_of(int fd)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof info;
    SYS(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len));
    return info;
}

struct ends {
    struct sockaddr_in6 local, remote;
};

static struct ends ends_of(int fd)
{
    struct ends ends;
    memset(&ends, 0, sizeof ends);
    socklen_t len = sizeof ends.local;
    SYS(getsockname(fd, (void *)&ends.local, &len));
    len = sizeof ends.remote;
    SYS(getpeername(fd, (void *)&ends.remote, &len));
    return ends;
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

static void child_answers(void *unused)
{
    (void)unused;
    close(client);
    member_hold("server");
    expect(server, "to server");
    expect(server, "after");
    SYS(send(server, "answer", 6, 0));
}

static size_t fill_up(int fd)
{
    static char bytes[65536];
    size_t sent = 0;
    while (sent < MANY) {
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (char)((sent + i) * 31 >> 3);
        ssize_t got = send(fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got < 0 && errno == EAGAIN) {
            nap_ms(5); /* what is under way arrives */
            got = send(fd, bytes, sizeof bytes, MSG_DONTWAIT);
            if (got < 0)
                break;
        }
        sent += got;
    }
    return sent;
}

static void read_all(int fd, size_t len)
{
    static char bytes[65536];
    for (size_t used = 0; used < len;) {
        ssize_t got = SYS(recv(fd, bytes, sizeof bytes < len - used ? sizeof bytes : len - used, 0));
        CHECK(got > 0, "end of file after %zu bytes", used);
        for (ssize_t i = 0; i < got; i++)
            CHECK(bytes[i] == (char)((used + i) * 31 >> 3), "byte %zu is wrong", used + i);
        used += got;
    }
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    bool v6 = variant("v6") || variant("mapped");
    struct sockaddr_in6 address6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    struct sockaddr_in address4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (variant("mapped"))
        address6.sin6_addr = in6addr_any;
    struct sockaddr *address = v6 ? (void *)&address6 : (void *)&address4;
    socklen_t len = v6 ? sizeof address6 : sizeof address4;
    listener = SYS(socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(bind(listener, address, len));
    SYS(listen(listener, 5));
    SYS(getsockname(listener, address, &len));
    address4.sin_port = v6 ? address6.sin6_port : address4.sin_port;
    bool v4_client = !v6 || variant("mapped");
    client = SYS(socket(v4_client ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(connect(client, v4_client ? (void *)&address4 : (void *)&address6, v4_client ? sizeof address4 : sizeof address6));
    server = SYS(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
    SYS(setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)));
    SYS(setsockopt(client, SOL_SOCKET, SO_KEEPALIVE, &(int){1}, sizeof(int)));
    SYS(setsockopt(client, IPPROTO_TCP, TCP_KEEPIDLE, &(int){99}, sizeof(int)));
    SYS(setsockopt(server, SOL_SOCKET, SO_RCVBUF, &(int){100000}, sizeof(int)));
    epoll = SYS(epoll_create1(EPOLL_CLOEXEC));
    struct epoll_event event = {EPOLLIN | EPOLLRDHUP, {.u64 = 7}};
    SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, client, &event));
    /* some history, so that sequence numbers have moved */
    SYS(send(client, "history", 7, 0));
    expect(server, "history");
    size_t many = 0;
    pid_t pid = 0;
    if (variant("full"))
        many = fill_up(client);
    else
        SYS(send(client, "to server", 9, 0));
    if (variant("fork")) {
        pid = fork_member(child_answers, NULL);
        await_member("server");
        close(server);
    } else
        SYS(send(server, "to client", 9, 0));
    nap_ms(20);
    /* Where the next peek begins (TCP has it since Linux 6.9): what lies before is unread all the same. */
    bool peeks = setsockopt(client, SOL_SOCKET, SO_PEEK_OFF, &(int){3}, sizeof(int)) == 0;
    struct ends client_ends = ends_of(client);
    struct tcp_info before = info_of(client);
    int reuse = get(client, SOL_SOCKET, SO_REUSEADDR), lock = get(client, SOL_SOCKET, 72);
    int room[2] = {get(client, SOL_SOCKET, SO_SNDBUF), get(client, SOL_SOCKET, SO_RCVBUF)};
    subject_hold();

    CHECK(!peeks || get(client, SOL_SOCKET, SO_PEEK_OFF) == 3, "peeks begin elsewhere");
    CHECK_EQ(get(client, SOL_SOCKET, SO_SNDBUF), room[0]);
    CHECK_EQ(get(client, SOL_SOCKET, SO_RCVBUF), room[1]);
    struct ends now = ends_of(client);
    CHECK(memcmp(&now, &client_ends, sizeof now) == 0, "other ends");
    struct tcp_info after = info_of(client);
    CHECK_EQ(after.tcpi_state, 1);
    CHECK_EQ(after.tcpi_options & 7, before.tcpi_options & 7);
    CHECK_EQ(after.tcpi_snd_wscale, before.tcpi_snd_wscale);
    CHECK_EQ(after.tcpi_rcv_wscale, before.tcpi_rcv_wscale);
    CHECK_EQ(get(client, IPPROTO_TCP, TCP_NODELAY), 1);
    CHECK_EQ(get(client, SOL_SOCKET, SO_KEEPALIVE), 1);
    CHECK_EQ(get(client, IPPROTO_TCP, TCP_KEEPIDLE), 99);
    CHECK_EQ(get(client, SOL_SOCKET, SO_REUSEADDR), reuse);
    CHECK_EQ(get(client, SOL_SOCKET, 72), lock); /* SO_BUF_LOCK */
    SYS(send(client, "after", 5, 0));
    if (variant("fork")) {
        expect(client, "answer");
        reap(pid);
        CHECK_EQ(recv(client, &(char){0}, 1, 0), 0);
        subject_pass();
    }
    CHECK_EQ(get(server, SOL_SOCKET, SO_RCVBUF), 200000);
    CHECK_EQ(epoll_wait(epoll, &event, 1, 0), 1);
    CHECK_EQ(event.data.u64, 7);
    expect(client, "to client");
    CHECK_EQ(epoll_wait(epoll, &event, 1, 0), 0);
    if (many)
        read_all(server, many);
    else
        expect(server, "to server");
    expect(server, "after");
    /* more than any window, in both directions */
    int fds[2] = {client, server};
    for (int i = 0; i < 2; i++) {
        size_t sent = fill_up(fds[i]);
        read_all(fds[!i], sent);
    }
    close(server);
    char byte;
    CHECK_EQ(recv(client, &byte, 1, 0), 0);
    /* and a new one at the same port */
    int late = SYS(socket(v4_client ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(connect(late, v4_client ? (void *)&address4 : (void *)&address6, v4_client ? sizeof address4 : sizeof address6));
    SYS(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
    subject_pass();
}
