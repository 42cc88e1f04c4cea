/* Netlink sockets keep protocol, port, groups, options and filter; variants by what a daemon asks for. */
#include "subject.h"
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#ifndef SOL_NETLINK
#define SOL_NETLINK 270
#endif
#define PROTOCOLS (int)(sizeof protocols / sizeof protocols[0])

static const int protocols[] = {NETLINK_ROUTE, NETLINK_USERSOCK, NETLINK_SOCK_DIAG, NETLINK_XFRM, NETLINK_AUDIT,
                                NETLINK_CONNECTOR, NETLINK_NETFILTER, NETLINK_KOBJECT_UEVENT, NETLINK_GENERIC};
static const int options[] = {NETLINK_PKTINFO, NETLINK_BROADCAST_ERROR, NETLINK_NO_ENOBUFS, NETLINK_LISTEN_ALL_NSID,
                              NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK};

static int get(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    SYS(getsockopt(fd, level, name, &value, &len));
    return value;
}

static uint32_t port_of(int fd)
{
    struct sockaddr_nl address;
    socklen_t len = sizeof address;
    SYS(getsockname(fd, (void *)&address, &len));
    return address.nl_pid;
}

static void bind_to(int fd, uint32_t port, uint32_t groups)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_pid = port, .nl_groups = groups};
    SYS(bind(fd, (void *)&address, sizeof address));
}

/* Asks for the loopback interface; answered to the port of the socket. */
static void ask_route(int fd)
{
    struct {
        struct nlmsghdr header;
        struct ifinfomsg body;
    } request = {{sizeof request, RTM_GETLINK, NLM_F_REQUEST, 7, 0}, {.ifi_index = 1}};
    char answer[16384];
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    SYS(sendto(fd, &request, sizeof request, 0, (void *)&kernel, sizeof kernel));
    SYS(recv(fd, answer, sizeof answer, 0));
    struct nlmsghdr *header = (void *)answer;
    CHECK_EQ(header->nlmsg_type, RTM_NEWLINK);
    CHECK_EQ(header->nlmsg_seq, 7);
    CHECK_EQ(header->nlmsg_pid, port_of(fd));
}

/* The first has the process's number for its port, the second one that the kernel chose, the third none yet. */
static void check_route(void)
{
    int fds[3];
    uint32_t ports[3];
    for (int i = 0; i < 3; i++)
        fds[i] = SYS(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE));
    bind_to(fds[0], 0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR);
    bind_to(fds[1], 0, 0);
    SYS(setsockopt(fds[1], SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &(int){RTNLGRP_NSID}, sizeof(int)));
    for (int i = 0; i < 7; i++)
        SYS(setsockopt(fds[0], SOL_NETLINK, options[i], &(int){1}, sizeof(int)));
    SYS(setsockopt(fds[0], SOL_SOCKET, SO_RCVBUFFORCE, &(int){4 << 20}, sizeof(int)));
    SYS(setsockopt(fds[0], SOL_SOCKET, SO_PASSCRED, &(int){1}, sizeof(int)));
    for (int i = 0; i < 3; i++)
        ports[i] = port_of(fds[i]);
    CHECK_EQ(ports[0], getpid());
    CHECK_EQ(ports[2], 0);
    uint32_t bits[4] = {0}, now[4] = {0};
    socklen_t len = sizeof bits, now_len = sizeof now;
    SYS(getsockopt(fds[1], SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, bits, &len));
    subject_hold();

    for (int i = 0; i < 3; i++)
        CHECK_EQ(port_of(fds[i]), ports[i]);
    for (int i = 0; i < 7; i++) {
        CHECK_EQ(get(fds[0], SOL_NETLINK, options[i]), 1);
        CHECK_EQ(get(fds[1], SOL_NETLINK, options[i]), 0);
    }
    CHECK_EQ(get(fds[0], SOL_SOCKET, SO_RCVBUF), 8 << 20);
    CHECK_EQ(get(fds[0], SOL_SOCKET, SO_PASSCRED), 1);
    struct sockaddr_nl address;
    socklen_t address_len = sizeof address;
    SYS(getsockname(fds[0], (void *)&address, &address_len));
    CHECK_EQ(address.nl_groups, RTMGRP_LINK | RTMGRP_IPV4_IFADDR);
    SYS(getsockopt(fds[1], SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, now, &now_len));
    CHECK(now_len == len && memcmp(bits, now, sizeof bits) == 0, "other groups");
    ask_route(fds[1]);
    ask_route(fds[2]);
    CHECK(port_of(fds[2]) != 0, "the third socket got no port");
}

/* Each protocol, bound, as a datagram socket too. */
static void check_protocols(void)
{
    int fds[2 * PROTOCOLS];
    uint32_t ports[2 * PROTOCOLS];
    for (int i = 0; i < 2 * PROTOCOLS; i++) {
        fds[i] = socket(AF_NETLINK, (i & 1 ? SOCK_DGRAM : SOCK_RAW) | SOCK_CLOEXEC, protocols[i / 2]);
        if (fds[i] < 0 && errno == EPROTONOSUPPORT)
            continue;
        SYS(fds[i]);
        bind_to(fds[i], i == 0 ? 4000000000u : 0, 0);
        ports[i] = port_of(fds[i]);
    }
    subject_hold();
    for (int i = 0; i < 2 * PROTOCOLS; i++)
        if (fds[i] >= 0) {
            CHECK_EQ(port_of(fds[i]), ports[i]);
            CHECK_EQ(get(fds[i], SOL_SOCKET, SO_PROTOCOL), protocols[i / 2]);
            CHECK_EQ(get(fds[i], SOL_SOCKET, SO_TYPE), i & 1 ? SOCK_DGRAM : SOCK_RAW);
        }
}

/* As libudev's monitor: a group, a filter on the message, credentials, a large buffer. A filtered message does not arrive. */
static void check_filter(void)
{
    int monitor = SYS(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_USERSOCK));
    int sender = SYS(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_USERSOCK));
    struct sock_filter code[] = {BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 'y', 0, 1),
                                 BPF_STMT(BPF_RET | BPF_K, 0xffffffff), BPF_STMT(BPF_RET | BPF_K, 0)};
    struct sock_fprog program = {4, code};
    SYS(setsockopt(monitor, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program));
    SYS(setsockopt(monitor, SOL_SOCKET, SO_LOCK_FILTER, &(int){1}, sizeof(int)));
    SYS(setsockopt(monitor, SOL_SOCKET, SO_PASSCRED, &(int){1}, sizeof(int)));
    bind_to(monitor, 0, 1 << 4);
    bind_to(sender, 0, 0);
    subject_hold();
    struct sock_filter seen[8];
    socklen_t len = 8;
    SYS(getsockopt(monitor, SOL_SOCKET, SO_GET_FILTER, seen, &len));
    CHECK_EQ(len, 4);
    CHECK(memcmp(seen, code, sizeof code) == 0, "another filter");
    CHECK(setsockopt(monitor, SOL_SOCKET, SO_DETACH_FILTER, &(int){0}, sizeof(int)) < 0 && errno == EPERM,
          "the filter is not locked any more");
    struct sockaddr_nl to = {.nl_family = AF_NETLINK, .nl_groups = 1 << 4};
    char bytes[8];
    /* ECONNREFUSED: the kernel itself, which gets a copy, does not listen */
    (void)!sendto(sender, "no", 2, 0, (void *)&to, sizeof to);
    (void)!sendto(sender, "yes", 3, 0, (void *)&to, sizeof to);
    CHECK_EQ(recv(monitor, bytes, sizeof bytes, 0), 3);
    CHECK(bytes[0] == 'y', "the filter lets pass what it should not");
}

/* Connected to another port. */
static void check_connected(void)
{
    int a = SYS(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_USERSOCK));
    int b = SYS(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_USERSOCK));
    bind_to(b, 0, 0);
    struct sockaddr_nl to = {.nl_family = AF_NETLINK, .nl_pid = port_of(b)}, peer;
    SYS(connect(a, (void *)&to, sizeof to));
    uint32_t port = port_of(a);
    subject_hold();
    socklen_t len = sizeof peer;
    SYS(getpeername(a, (void *)&peer, &len));
    CHECK_EQ(peer.nl_pid, to.nl_pid);
    CHECK_EQ(port_of(a), port);
    char bytes[8];
    SYS(send(a, "hello", 5, 0));
    len = sizeof peer;
    CHECK_EQ(recvfrom(b, bytes, sizeof bytes, 0, (void *)&peer, &len), 5);
    CHECK_EQ(peer.nl_pid, port);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (variant("route"))
        check_route();
    else if (variant("protocols"))
        check_protocols();
    else if (variant("filter"))
        check_filter();
    else if (variant("connected"))
        check_connected();
    else
        subject_fail(__FILE__, __LINE__, "no variant %s", subject_variant);
    subject_pass();
}
