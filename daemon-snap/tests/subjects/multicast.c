/* Multicast: groups joined with and without source filters, and what is sent there. Variants v4, v6, both (groups of both
 * families on one IPv6 socket). */
#include "subject.h"
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

static struct sockaddr_storage address_of(const char *text, int port)
{
    struct sockaddr_storage out = {0};
    struct sockaddr_in *v4 = (void *)&out;
    struct sockaddr_in6 *v6 = (void *)&out;
    bool is_v6 = strchr(text, ':') != NULL;
    out.ss_family = is_v6 ? AF_INET6 : AF_INET;
    CHECK(inet_pton(out.ss_family, text, is_v6 ? (void *)&v6->sin6_addr : (void *)&v4->sin_addr) == 1, "%s", text);
    *(is_v6 ? &v6->sin6_port : &v4->sin_port) = htons(port);
    if (is_v6)
        v6->sin6_scope_id = if_nametoindex("lo");
    return out;
}

static int level_of(const char *text)
{
    return strchr(text, ':') ? IPPROTO_IPV6 : IPPROTO_IP;
}

static void join(int fd, const char *group, const char *source, int how)
{
    struct group_source_req request = {if_nametoindex("lo"), address_of(group, 0), {0}};
    if (source)
        request.gsr_source = address_of(source, 0);
    struct group_req plain = {request.gsr_interface, request.gsr_group};
    if (!source)
        SYS(setsockopt(fd, level_of(group), how, &plain, sizeof plain));
    else
        SYS(setsockopt(fd, level_of(group), how, &request, sizeof request));
}

/* Mode and number of sources of a membership, -1 when there is none. */
static int filter_of(int fd, const char *group)
{
    static char bytes[GROUP_FILTER_SIZE(8)];
    struct group_filter *filter = (void *)bytes;
    *filter = (struct group_filter){.gf_interface = if_nametoindex("lo"), .gf_group = address_of(group, 0), .gf_numsrc = 8};
    socklen_t len = sizeof bytes;
    if (getsockopt(fd, level_of(group), MCAST_MSFILTER, filter, &len) < 0)
        return -1;
    return filter->gf_fmode * 100 + filter->gf_numsrc;
}

static void check_heard(int inbox, int sender, const char *group, int port, bool heard)
{
    struct sockaddr_storage to = address_of(group, port);
    char bytes[16] = "";
    bool v6 = strchr(group, ':') != NULL;
    if (sendto(sender, group, 10, 0, (void *)&to, v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in)) < 0) {
        CHECK(v6 && errno == ENETUNREACH, "sendto %s: %s", group, strerror(errno)); /* loopback has no such route */
        return;
    }
    nap_ms(5);
    ssize_t got = recv(inbox, bytes, sizeof bytes, MSG_DONTWAIT);
    CHECK((got == 10) == heard, "a datagram to %s was %sheard", group, heard ? "not " : "");
}

/* A socket on another group of the same port must not hear ours, and ours not its. */
int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    bool v6 = !variant("v4"), both = variant("both");
    const char *plain = v6 && !both ? "ff15::7:1" : "239.7.7.1", *blocked = v6 ? "ff15::7:2" : "239.7.7.2";
    const char *only = v6 ? "ff35::7:3" : "232.7.7.3", *other = v6 && !both ? "ff15::7:4" : "239.7.7.4";
    const char *own = v6 ? "::1" : "127.0.0.1", *stranger = v6 ? "fd00::9" : "10.9.9.9";
    int inbox = SYS(socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    struct sockaddr_storage any = address_of(v6 ? "::" : "0.0.0.0", 0);
    socklen_t len = sizeof any;
    ((struct sockaddr_in6 *)&any)->sin6_scope_id = 0;
    SYS(setsockopt(inbox, IPPROTO_IP, IP_MULTICAST_ALL, &(int){0}, sizeof(int)));
    if (v6)
        SYS(setsockopt(inbox, IPPROTO_IPV6, 29 /* IPV6_MULTICAST_ALL */, &(int){0}, sizeof(int)));
    SYS(bind(inbox, (void *)&any, v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in)));
    SYS(getsockname(inbox, (void *)&any, &len));
    int port = ntohs(((struct sockaddr_in *)&any)->sin_port);
    join(inbox, plain, NULL, MCAST_JOIN_GROUP);
    join(inbox, blocked, NULL, MCAST_JOIN_GROUP);
    join(inbox, blocked, own, MCAST_BLOCK_SOURCE);
    join(inbox, blocked, stranger, MCAST_BLOCK_SOURCE);
    join(inbox, only, own, MCAST_JOIN_SOURCE_GROUP);
    int neighbour = SYS(socket(v6 && !both ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    join(neighbour, other, NULL, MCAST_JOIN_GROUP);

    int sender4 = SYS(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    int sender6 = v6 ? SYS(socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0)) : -1;
    struct in_addr loopback = {htonl(INADDR_LOOPBACK)}, interface;
    SYS(setsockopt(sender4, IPPROTO_IP, IP_MULTICAST_IF, &loopback, sizeof loopback));
    SYS(setsockopt(sender4, IPPROTO_IP, IP_MULTICAST_TTL, &(int){7}, sizeof(int)));
    int index = if_nametoindex("lo"), value;
    if (v6) {
        SYS(setsockopt(sender6, IPPROTO_IPV6, IPV6_MULTICAST_IF, &index, sizeof index));
        SYS(setsockopt(sender6, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, &(int){9}, sizeof(int)));
        struct sockaddr_storage from = address_of("::1", 0);
        SYS(bind(sender6, (void *)&from, sizeof(struct sockaddr_in6)));
    }
    subject_hold();

    CHECK_EQ(filter_of(inbox, plain), MCAST_EXCLUDE * 100);
    CHECK_EQ(filter_of(inbox, blocked), MCAST_EXCLUDE * 100 + 2);
    CHECK_EQ(filter_of(inbox, only), MCAST_INCLUDE * 100 + 1);
    CHECK_EQ(filter_of(inbox, other), -1);
    CHECK_EQ(filter_of(neighbour, other), MCAST_EXCLUDE * 100);
    CHECK_EQ(filter_of(neighbour, plain), -1);
    len = sizeof interface;
    SYS(getsockopt(sender4, IPPROTO_IP, IP_MULTICAST_IF, &interface, &len));
    CHECK_EQ(interface.s_addr, loopback.s_addr);
    len = sizeof value;
    SYS(getsockopt(sender4, IPPROTO_IP, IP_MULTICAST_TTL, &value, &len));
    CHECK_EQ(value, 7);
    if (v6) {
        SYS(getsockopt(sender6, IPPROTO_IPV6, IPV6_MULTICAST_IF, &value, &len));
        CHECK_EQ(value, index);
        SYS(getsockopt(sender6, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, &value, &len));
        CHECK_EQ(value, 9);
    }
    const char *groups[] = {plain, blocked, only, other};
    for (int i = 0; i < 4; i++)
        check_heard(inbox, strchr(groups[i], ':') ? sender6 : sender4, groups[i], port, i == 0 || i == 2);
    subject_pass();
}
