/* Every option of every level that can be set and read at all: one socket for each, which reads the same afterwards. */
#include "subject.h"
#include <net/ethernet.h>
#include <netinet/in.h>
#include <sys/socket.h>

struct kind {
    int family, type, protocol;
};

static const struct kind kinds[] = {
    {AF_INET, SOCK_STREAM, 0},  {AF_INET6, SOCK_STREAM, 0},           {AF_INET, SOCK_DGRAM, 0},
    {AF_INET6, SOCK_DGRAM, 0},  {AF_INET, SOCK_RAW, IPPROTO_ICMP},    {AF_INET6, SOCK_RAW, 99},
    {AF_UNIX, SOCK_STREAM, 0},  {AF_UNIX, SOCK_DGRAM, 0},             {AF_PACKET, SOCK_DGRAM, 0},
    {AF_NETLINK, SOCK_RAW, 0},  {AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE},
};
#define KINDS (sizeof kinds / sizeof *kinds)
static const int levels[] = {SOL_SOCKET, IPPROTO_IP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_IPV6, IPPROTO_UDPLITE, 255, 263, 270};
#define LEVELS (sizeof levels / sizeof *levels)
#define NAMES 128

/* Multicast is nothing to a stream, and the kernel lets most of it be read there, but not set. */
static bool is_multicast(int level, int name)
{
    return level == IPPROTO_IP ? (name >= 32 && name <= 34) || name == 49
                               : level == IPPROTO_IPV6 && ((name >= 17 && name <= 19) || name == 29);
}

/* What is of the moment, of no socket, or has a subject of its own. */
static bool is_aside(int level, int name)
{
    static const struct {
        int level, name;
    } aside[] = {
        {SOL_SOCKET, 26}, {SOL_SOCKET, 27}, {SOL_SOCKET, 50}, {SOL_SOCKET, 51}, {SOL_SOCKET, 52}, {SOL_SOCKET, 68},
        {SOL_SOCKET, 14} /* without effect */, {SOL_SOCKET, 49} /* SO_INCOMING_CPU: not told apart from what was noted */,
        {SOL_SOCKET, 60} /* SO_ZEROCOPY: refused */, {IPPROTO_IPV6, 1}, {IPPROTO_IPV6, 6}, {IPPROTO_IPV6, 22},
        {IPPROTO_IPV6, 24} /* unbound: not told */, {IPPROTO_TCP, 12} /* TCP_QUICKACK */, {IPPROTO_TCP, 17},
        {IPPROTO_TCP, 19}, {IPPROTO_TCP, 20}, {263, 5}, {263, 13}, {263, 18},
    };
    for (size_t i = 0; i < sizeof aside / sizeof *aside; i++)
        if (aside[i].level == level && aside[i].name == name)
            return true;
    return false;
}

static struct {
    int fd, level, name;
    size_t kind;
    socklen_t len;
    char value[256];
} kept[1024];
static int count;

/* A socket of this kind with which nothing has been done yet. */
static int spare = -1;

static void walk(size_t kind, int level, int name)
{
    for (int value = 1; value <= 3; value++) {
        if (spare < 0)
            spare = SYS(socket(kinds[kind].family, kinds[kind].type | SOCK_CLOEXEC, kinds[kind].protocol));
        char fresh[256] = "", now[256] = "";
        socklen_t fresh_len = sizeof fresh, len = sizeof now;
        if (getsockopt(spare, level, name, fresh, &fresh_len) < 0)
            return;
        if (setsockopt(spare, level, name, &value, sizeof value) < 0)
            continue;
        SYS(getsockopt(spare, level, name, now, &len));
        if (len == fresh_len && memcmp(now, fresh, len) == 0)
            continue;
        CHECK(count < 1024, "too many options");
        kept[count].fd = spare;
        kept[count].level = level;
        kept[count].name = name;
        kept[count].kind = kind;
        kept[count].len = len;
        memcpy(kept[count++].value, now, len);
        spare = -1;
        return;
    }
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct rlimit limit;
    SYS(getrlimit(RLIMIT_NOFILE, &limit));
    limit.rlim_cur = limit.rlim_max < 2048 ? limit.rlim_max : 2048;
    SYS(setrlimit(RLIMIT_NOFILE, &limit));
    for (size_t kind = 0; kind < KINDS; kind++) {
        int fd = socket(kinds[kind].family, kinds[kind].type | SOCK_CLOEXEC, kinds[kind].protocol);
        /* kernels lose protocols, UDP-Lite among them */
        if (fd < 0)
            continue;
        spare = fd;
        for (size_t level = 0; level < LEVELS; level++)
            for (int name = 0; name < NAMES; name++)
                if (!is_aside(levels[level], name) &&
                    !(kinds[kind].type == SOCK_STREAM && is_multicast(levels[level], name)))
                    walk(kind, levels[level], name);
        if (spare >= 0)
            close(spare);
    }
    CHECK(count > 200, "only %d options", count);
    subject_hold();

    for (int i = 0; i < count; i++) {
        char now[256] = "";
        socklen_t len = sizeof now;
        SYS(getsockopt(kept[i].fd, kept[i].level, kept[i].name, now, &len));
        const struct kind *kind = &kinds[kept[i].kind];
        CHECK(len == kept[i].len && memcmp(now, kept[i].value, len) == 0,
              "option %d of level %d of family %d, type %d, protocol %d is %d, was %d", kept[i].name, kept[i].level,
              kind->family, kind->type, kind->protocol, *(int *)now, *(int *)kept[i].value);
    }
    subject_pass();
}
