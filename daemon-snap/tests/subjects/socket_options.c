/* Every option that can be set and read comes back. Variants: tcp4, tcp6, udp4, udp6, raw4, raw6, unix, packet. */
#include "subject.h"
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

struct option {
    int level, name, value;
};

static const struct option common[] = {
    {SOL_SOCKET, SO_PRIORITY, 5},    {SOL_SOCKET, SO_MARK, 42},          {SOL_SOCKET, SO_RCVBUF, 30000},
    {SOL_SOCKET, SO_SNDBUF, 40000},  {SOL_SOCKET, SO_RCVLOWAT, 3},       {SOL_SOCKET, SO_TIMESTAMPNS, 1},
    {SOL_SOCKET, SO_BUSY_POLL, 50},  {SOL_SOCKET, SO_RXQ_OVFL, 1},       {SOL_SOCKET, SO_DONTROUTE, 1},
    {SOL_SOCKET, SO_REUSEADDR, 1},   {SOL_SOCKET, SO_SELECT_ERR_QUEUE, 1}, {SOL_SOCKET, SO_MAX_PACING_RATE, 1 << 20},
};
static const struct option ip[] = {
    {IPPROTO_IP, IP_TOS, 0x10},     {IPPROTO_IP, IP_TTL, 33},        {IPPROTO_IP, IP_PKTINFO, 1},
    {IPPROTO_IP, IP_RECVERR, 1},    {IPPROTO_IP, IP_RECVTTL, 1},     {IPPROTO_IP, IP_RECVTOS, 1},
    {IPPROTO_IP, IP_FREEBIND, 1},   {IPPROTO_IP, IP_TRANSPARENT, 1}, {IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO},
    {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1}, {IPPROTO_IP, IP_RECVORIGDSTADDR, 1}, {IPPROTO_IP, IP_MINTTL, 2},
};
static const struct option ipv6[] = {
    {IPPROTO_IPV6, IPV6_V6ONLY, 1},       {IPPROTO_IPV6, IPV6_UNICAST_HOPS, 44},  {IPPROTO_IPV6, IPV6_RECVPKTINFO, 1},
    {IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1}, {IPPROTO_IPV6, IPV6_TCLASS, 0x20},      {IPPROTO_IPV6, IPV6_RECVTCLASS, 1},
    {IPPROTO_IPV6, IPV6_RECVERR, 1},      {IPPROTO_IPV6, IPV6_DONTFRAG, 1},       {IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, 0},
    {IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO}, {IPPROTO_IPV6, IPV6_TRANSPARENT, 1}, {IPPROTO_IPV6, IPV6_FREEBIND, 1},
    {IPPROTO_IPV6, IPV6_2292PKTINFO, 1},
};
static const struct option tcp[] = {
    {IPPROTO_TCP, TCP_NODELAY, 1},    {IPPROTO_TCP, TCP_MAXSEG, 1000},     {IPPROTO_TCP, TCP_KEEPIDLE, 77},
    {IPPROTO_TCP, TCP_KEEPINTVL, 11}, {IPPROTO_TCP, TCP_KEEPCNT, 4},       {IPPROTO_TCP, TCP_SYNCNT, 3},
    {IPPROTO_TCP, TCP_LINGER2, 20},   {IPPROTO_TCP, TCP_DEFER_ACCEPT, 7},  {IPPROTO_TCP, TCP_USER_TIMEOUT, 5000},
    {IPPROTO_TCP, TCP_FASTOPEN, 9},   {IPPROTO_TCP, TCP_NOTSENT_LOWAT, 16384}, {IPPROTO_TCP, TCP_WINDOW_CLAMP, 20000},
    {SOL_SOCKET, SO_KEEPALIVE, 1},    {SOL_SOCKET, SO_REUSEPORT, 1},       {SOL_SOCKET, SO_OOBINLINE, 1},
};
static const struct option udp[] = {
    {SOL_SOCKET, SO_BROADCAST, 1}, {SOL_SOCKET, SO_REUSEPORT, 1}, {SOL_SOCKET, SO_NO_CHECK, 1}, {IPPROTO_UDP, 103 /* UDP_SEGMENT */, 500},
    {IPPROTO_UDP, 104 /* UDP_GRO */, 1}, {SOL_SOCKET, SO_PEEK_OFF, 0},
};
static const struct option raw[] = {{IPPROTO_IP, IP_HDRINCL, 1}, {255, 1 /* ICMP_FILTER */, 0x55}};
static const struct option raw6[] = {{IPPROTO_IPV6, 36 /* IPV6_HDRINCL */, 1}};
static const struct option local[] = {
    {SOL_SOCKET, SO_PASSCRED, 1}, {SOL_SOCKET, SO_RCVBUF, 30000}, {SOL_SOCKET, SO_SNDBUF, 40000}, {SOL_SOCKET, SO_PRIORITY, 3},
    {SOL_SOCKET, SO_TIMESTAMP, 1}, {SOL_SOCKET, SO_PASSSEC, 1}, {SOL_SOCKET, SO_PEEK_OFF, 2},
};
static const struct option packet[] = {
    {SOL_PACKET, PACKET_AUXDATA, 1}, {SOL_PACKET, PACKET_ORIGDEV, 1}, {SOL_PACKET, PACKET_VERSION, TPACKET_V2},
    {SOL_PACKET, PACKET_QDISC_BYPASS, 1}, {SOL_PACKET, PACKET_RESERVE, 16}, {SOL_PACKET, PACKET_LOSS, 1},
};

#define MOST 64
static struct option wanted[MOST];
static int count;

static void set_all(int fd, const struct option *options, size_t bytes)
{
    for (size_t i = 0; i < bytes / sizeof *options; i++) {
        struct option option = options[i];
        if (setsockopt(fd, option.level, option.name, &option.value, sizeof(int)) < 0)
            continue; /* not of this kind of socket, or not of this kernel */
        wanted[count++] = option;
    }
}

/* What was read before is what counts: the kernel rounds some values. */
static void read_all(int fd)
{
    for (int i = 0; i < count; i++) {
        socklen_t len = sizeof(int);
        wanted[i].value = 0;
        SYS(getsockopt(fd, wanted[i].level, wanted[i].name, &wanted[i].value, &len));
    }
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    bool v6 = subject_variant[strlen(subject_variant) - 1] == '6', stream = strncmp(subject_variant, "tcp", 3) == 0;
    bool is_raw = strncmp(subject_variant, "raw", 3) == 0, is_udp = strncmp(subject_variant, "udp", 3) == 0;
    int family = variant("unix") ? AF_UNIX : variant("packet") ? AF_PACKET : v6 ? AF_INET6 : AF_INET;
    int type = stream ? SOCK_STREAM : is_raw ? SOCK_RAW : SOCK_DGRAM;
    int fd = SYS(socket(family, type | SOCK_CLOEXEC, is_raw ? v6 ? 99 : IPPROTO_ICMP : 0));
    if (family == AF_UNIX) {
        set_all(fd, local, sizeof local);
        CHECK(count >= 5, "only %d options", count);
    } else if (family == AF_PACKET) {
        set_all(fd, packet, sizeof packet);
        CHECK(count >= 5, "only %d options", count);
    } else {
        set_all(fd, common, sizeof common);
        set_all(fd, ip, sizeof ip);
        if (v6)
            set_all(fd, ipv6, sizeof ipv6);
        if (stream)
            set_all(fd, tcp, sizeof tcp);
        if (is_udp)
            set_all(fd, udp, sizeof udp);
        if (is_raw)
            set_all(fd, v6 ? raw6 : raw, v6 ? sizeof raw6 : sizeof raw);
        CHECK(count >= 20, "only %d options", count);
        SYS(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3));
        SYS(setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 4}, sizeof(struct linger)));
    }
    SYS(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){2, 500000}, sizeof(struct timeval)));
    SYS(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){3, 0}, sizeof(struct timeval)));
    if (stream)
        SYS(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
    struct sock_filter code[] = {BPF_STMT(BPF_RET | BPF_K, 0xffff)}, seen[4];
    struct sock_fprog program = {1, code};
    SYS(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program));
    read_all(fd);
    subject_hold();

    for (int i = 0; i < count; i++) {
        int now = 0;
        socklen_t len = sizeof now;
        SYS(getsockopt(fd, wanted[i].level, wanted[i].name, &now, &len));
        CHECK(now == wanted[i].value, "option %d of level %d is %d, was %d", wanted[i].name, wanted[i].level, now,
              wanted[i].value);
    }
    struct timeval limit;
    socklen_t len = sizeof limit;
    SYS(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, &len));
    CHECK(limit.tv_sec == 2 && limit.tv_usec == 500000, "SO_RCVTIMEO is %ld.%06ld", limit.tv_sec, limit.tv_usec);
    len = 4;
    SYS(getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, seen, &len));
    CHECK(len == 1 && memcmp(seen, code, sizeof code) == 0, "another filter, of %d instructions", (int)len);
    char text[32] = "";
    len = sizeof text;
    if (family == AF_INET || family == AF_INET6) {
        SYS(getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, text, &len));
        CHECK(strcmp(text, "lo") == 0, "bound to device '%s'", text);
    }
    if (stream) {
        len = sizeof text;
        SYS(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, text, &len));
        CHECK(strncmp(text, "reno", 5) == 0, "congestion control is %s", text);
    }
    subject_pass();
}
