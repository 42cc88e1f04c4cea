/* Variants v4, v6: UDP sockets, bound with options, connected, and unbound. */
#include "subject.h"
#include <arpa/inet.h>
#include <sys/socket.h>

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
    bool v6 = variant("v6");
    struct sockaddr_in v4_address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 v6_address = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    struct sockaddr *address = v6 ? (void *)&v6_address : (void *)&v4_address;
    socklen_t len = v6 ? sizeof v6_address : sizeof v4_address;
    struct sockaddr_in6 peer_address, seen;
    int bound = socket(address->sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (bound < 0 && errno == EAFNOSUPPORT)
        subject_skip("no IPv6 here");
    int connected = SYS(socket(address->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    int unbound = SYS(socket(address->sa_family, SOCK_DGRAM, 0));
    const struct {
        int level, name, value;
    } options[] = {{SOL_SOCKET, SO_REUSEADDR, 1},
                   {SOL_SOCKET, SO_BROADCAST, 1},
                   {SOL_SOCKET, SO_RCVBUF, 40000},
                   {SOL_SOCKET, SO_TIMESTAMP, 1},
                   {v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_RECVPKTINFO : IP_PKTINFO, 1},
                   {v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_UNICAST_HOPS : IP_TTL, 33},
                   {v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_TCLASS : IP_TOS, 16}};
    int before[7];
    for (int i = 0; i < 7; i++) {
        SYS(setsockopt(bound, options[i].level, options[i].name, &options[i].value, sizeof(int)));
        before[i] = get(bound, options[i].level, options[i].name);
    }
    SYS(setsockopt(bound, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){3, 0}, sizeof(struct timeval)));
    SYS(bind(bound, address, len));
    SYS(getsockname(bound, address, &len));
    SYS(connect(connected, address, len));
    socklen_t peer_len = sizeof peer_address;
    SYS(getsockname(connected, (void *)&peer_address, &peer_len));
    subject_hold();

    socklen_t seen_len = sizeof seen;
    SYS(getsockname(bound, (void *)&seen, &seen_len));
    CHECK(seen_len == len && memcmp(&seen, address, len) == 0, "bound to another address");
    SYS(getsockname(connected, (void *)&seen, &seen_len));
    CHECK(seen_len == peer_len && memcmp(&seen, &peer_address, peer_len) == 0, "connected from another address");
    for (int i = 0; i < 7; i++) {
        int now = get(bound, options[i].level, options[i].name);
        CHECK(now == before[i], "option %d of level %d is %d, was %d", options[i].name, options[i].level, now,
              before[i]);
    }
    struct timeval limit;
    socklen_t limit_len = sizeof limit;
    SYS(getsockopt(bound, SOL_SOCKET, SO_RCVTIMEO, &limit, &limit_len));
    CHECK_EQ(limit.tv_sec, 3);
    char bytes[16];
    SYS(send(connected, "to bound", 8, 0));
    await_that(recvfrom(bound, bytes, sizeof bytes, 0, (void *)&seen, &seen_len) == 8);
    CHECK(memcmp(&seen, &peer_address, peer_len) == 0, "came from another address");
    SYS(sendto(bound, "back", 4, 0, (void *)&seen, seen_len));
    CHECK_EQ(recv(connected, bytes, sizeof bytes, 0), 4);
    SYS(sendto(unbound, "third", 5, 0, address, len));
    await_that(recv(bound, bytes, sizeof bytes, 0) == 5);
    subject_pass();
}
