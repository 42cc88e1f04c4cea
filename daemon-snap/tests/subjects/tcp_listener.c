/* Variants v4, v6, dual: a TCP listener with its options and its backlog accepts afterwards on the same port. */
#include "subject.h"
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static const struct {
    int level, name, value;
} options[] = {
    {SOL_SOCKET, SO_REUSEADDR, 1},     {SOL_SOCKET, SO_KEEPALIVE, 1},    {IPPROTO_TCP, TCP_NODELAY, 1},
    {IPPROTO_TCP, TCP_KEEPIDLE, 120},  {IPPROTO_TCP, TCP_KEEPINTVL, 13}, {IPPROTO_TCP, TCP_KEEPCNT, 4},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT, 0}, {IPPROTO_TCP, TCP_FASTOPEN, 32}, {SOL_SOCKET, SO_REUSEPORT, 1},
    {SOL_SOCKET, SO_PRIORITY, 5},      {IPPROTO_TCP, TCP_USER_TIMEOUT, 9000}, {SOL_SOCKET, SO_MARK, 77},
    {SOL_SOCKET, SO_RCVBUF, 100000},   {SOL_SOCKET, SO_SNDBUF, 200000},
};
#define OPTIONS (int)(sizeof options / sizeof options[0])

static int get(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    SYS(getsockopt(fd, level, name, &value, &len));
    return value;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    bool v6 = !variant("v4");
    struct sockaddr_in v4_address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 v6_address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_ANY_INIT};
    struct sockaddr *address = v6 ? (void *)&v6_address : (void *)&v4_address;
    socklen_t len = v6 ? sizeof v6_address : sizeof v4_address;
    int listener = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0 && errno == EAFNOSUPPORT)
        subject_skip("no IPv6 here");
    if (v6)
        SYS(setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &(int){variant("v6")}, sizeof(int)));
    for (int i = 0; i < OPTIONS; i++)
        SYS(setsockopt(listener, options[i].level, options[i].name, &options[i].value, sizeof(int)));
    SYS(setsockopt(listener, SOL_SOCKET, SO_LINGER, &(struct linger){1, 3}, sizeof(struct linger)));
    SYS(bind(listener, address, len));
    SYS(getsockname(listener, address, &len));
    SYS(listen(listener, 73));
    int second = SYS(socket(AF_INET, SOCK_STREAM, 0)); /* bound nowhere */
    int before[OPTIONS];
    for (int i = 0; i < OPTIONS; i++)
        before[i] = get(listener, options[i].level, options[i].name);
    subject_hold();

    struct sockaddr_in6 seen;
    socklen_t seen_len = sizeof seen;
    SYS(getsockname(listener, (void *)&seen, &seen_len));
    CHECK(seen_len == len && memcmp(&seen, address, len) == 0, "bound to another address");
    for (int i = 0; i < OPTIONS; i++) {
        int now = get(listener, options[i].level, options[i].name);
        CHECK(now == before[i], "option %d of level %d is %d, was %d", options[i].name, options[i].level, now,
              before[i]);
    }
    CHECK_EQ(get(listener, SOL_SOCKET, SO_ACCEPTCONN), 1);
    if (v6)
        CHECK_EQ(get(listener, IPPROTO_IPV6, IPV6_V6ONLY), variant("v6"));
    struct linger linger;
    socklen_t linger_len = sizeof linger;
    SYS(getsockopt(listener, SOL_SOCKET, SO_LINGER, &linger, &linger_len));
    CHECK(linger.l_onoff == 1 && linger.l_linger == 3, "SO_LINGER is %d, %d", linger.l_onoff, linger.l_linger);
    struct tcp_info info;
    socklen_t info_len = sizeof info;
    SYS(getsockopt(listener, IPPROTO_TCP, TCP_INFO, &info, &info_len));
    CHECK_EQ(info.tcpi_sacked, 73); /* of a listener: the backlog */
    CHECK(accept(listener, NULL, NULL) < 0 && errno == EAGAIN, "a client from nowhere");
    int family = variant("v6") ? AF_INET6 : AF_INET, client = SYS(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    struct sockaddr_in6 v6_to = v6_address;
    v6_to.sin6_addr = in6addr_loopback;
    struct sockaddr_in v4_to = {AF_INET, v6 ? v6_address.sin6_port : v4_address.sin_port, {htonl(INADDR_LOOPBACK)}, {0}};
    if (family == AF_INET6)
        SYS(connect(client, (void *)&v6_to, sizeof v6_to));
    else
        SYS(connect(client, (void *)&v4_to, sizeof v4_to));
    SYS(send(client, "ping", 4, 0));
    int server = -1;
    await_that((server = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0);
    char bytes[8];
    CHECK_EQ(recv(server, bytes, sizeof bytes, 0), 4);
    CHECK_EQ(get(server, IPPROTO_TCP, TCP_NODELAY), 1);
    SYS(bind(second, (void *)&(struct sockaddr_in){.sin_family = AF_INET}, sizeof(struct sockaddr_in)));
    SYS(listen(second, 1));
    subject_pass();
}
