/* Packet sockets: bound to an interface and protocol, memberships, fanout, filter; frames arrive afterwards. */
#include "subject.h"
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sys/socket.h>

#define PROTOCOL 0x88b5 /* for local experiments */


static int flags_of_lo(void)
{
    char text[32];
    CHECK(read_file("/sys/class/net/lo/flags", text, sizeof text) > 0, "no /sys/class/net/lo");
    return (int)strtol(text, NULL, 16);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int index = if_nametoindex("lo");
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(PROTOCOL), .sll_ifindex = index, .sll_halen = 6}, seen;
    int inbox = SYS(socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    int silent = SYS(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
    int everywhere = SYS(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(PROTOCOL)));
    /* only frames that begin with 'y' */
    struct sock_filter code[] = {BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 'y', 0, 1),
                                 BPF_STMT(BPF_RET | BPF_K, 0xffff), BPF_STMT(BPF_RET | BPF_K, 0)};
    struct sock_fprog program = {4, code};
    SYS(setsockopt(inbox, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program));
    SYS(bind(inbox, (void *)&address, sizeof address));
    struct packet_mreq member = {index, PACKET_MR_MULTICAST, 6, {1, 0, 0x5e, 1, 2, 3}};
    SYS(setsockopt(inbox, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &member, sizeof member));
    struct packet_mreq all = {index, PACKET_MR_ALLMULTI, 0, {0}};
    SYS(setsockopt(inbox, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all));
    SYS(setsockopt(inbox, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all));
    int fanout = 4242 | PACKET_FANOUT_CPU << 16, value;
    SYS(setsockopt(inbox, SOL_PACKET, PACKET_FANOUT, &fanout, sizeof fanout));
    socklen_t len = sizeof value;
    SYS(getsockopt(inbox, SOL_PACKET, PACKET_FANOUT, &fanout, &len));
    subject_hold();

    len = sizeof seen;
    SYS(getsockname(inbox, (void *)&seen, &len));
    CHECK(seen.sll_protocol == htons(PROTOCOL) && seen.sll_ifindex == index, "bound to %x on %d", ntohs(seen.sll_protocol),
          seen.sll_ifindex);
    len = sizeof seen;
    SYS(getsockname(everywhere, (void *)&seen, &len));
    CHECK(seen.sll_protocol == htons(PROTOCOL) && seen.sll_ifindex == 0, "bound to %x on %d", ntohs(seen.sll_protocol),
          seen.sll_ifindex);
    len = sizeof value;
    SYS(getsockopt(inbox, SOL_PACKET, PACKET_FANOUT, &value, &len));
    CHECK_EQ(value, fanout);
    /* it was added twice */
    CHECK(flags_of_lo() & IFF_ALLMULTI, "lo does not hear all multicast");
    SYS(setsockopt(inbox, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &all, sizeof all));
    CHECK(flags_of_lo() & IFF_ALLMULTI, "lo does not hear all multicast");
    SYS(setsockopt(inbox, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &member, sizeof member));
    char bytes[64];
    SYS(sendto(inbox, "no", 2, 0, (void *)&address, sizeof address));
    SYS(sendto(inbox, "yes", 3, 0, (void *)&address, sizeof address));
    struct timeval limit = {2, 0};
    SYS(setsockopt(inbox, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
    SYS(setsockopt(everywhere, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
    CHECK_EQ(SYS(recv(inbox, bytes, sizeof bytes, 0)), 3);
    CHECK_EQ(bytes[0], 'y');
    CHECK(SYS(recv(everywhere, bytes, sizeof bytes, 0)) >= 16, "a short frame");
    CHECK(recv(silent, bytes, sizeof bytes, MSG_DONTWAIT) < 0 && errno == EAGAIN, "the silent one heard something");
    subject_pass();
}
