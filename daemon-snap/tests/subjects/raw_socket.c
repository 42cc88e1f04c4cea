/* A raw socket goes on receiving what it was bound to. Variants v4 (all ICMP of loopback), ping (SOCK_DGRAM of ICMP), udp4. */
#include "subject.h"
#include <arpa/inet.h>
#include <netinet/ip_icmp.h>
#include <sys/socket.h>

static uint16_t checksum(const void *bytes, int len)
{
    const uint16_t *word = bytes;
    uint32_t sum = 0;
    for (; len > 1; len -= 2)
        sum += *word++;
    sum = (sum >> 16) + (sum & 0xffff);
    return ~(sum + (sum >> 16));
}

static void ping(int fd, struct sockaddr_in *to)
{
    struct icmphdr echo = {.type = ICMP_ECHO, .un.echo.id = 77, .un.echo.sequence = 5};
    echo.checksum = checksum(&echo, sizeof echo);
    SYS(sendto(fd, &echo, sizeof echo, 0, (void *)to, sizeof *to));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sockaddr_in loopback = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, bound, seen;
    int type = variant("ping") ? SOCK_DGRAM : SOCK_RAW;
    if (variant("ping")) {
        int range = open("/proc/sys/net/ipv4/ping_group_range", O_RDWR | O_CLOEXEC);
        if (range < 0 || write(range, "0 100", 5) != 5)
            subject_skip("no ping sockets");
        close(range);
    }
    int fd = SYS(socket(AF_INET, type | SOCK_CLOEXEC, IPPROTO_ICMP));
    SYS(bind(fd, (void *)&loopback, sizeof loopback));
    SYS(connect(fd, (void *)&loopback, sizeof loopback));
    socklen_t len = sizeof bound;
    SYS(getsockname(fd, (void *)&bound, &len));
    subject_hold();
    len = sizeof seen;
    SYS(getsockname(fd, (void *)&seen, &len));
    CHECK(memcmp(&seen, &bound, sizeof seen) == 0, "bound to another address");
    struct timeval limit = {1, 0};
    SYS(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
    ping(fd, &loopback);
    /* others ping too while the tests run */
    for (int i = 0; i < 100; i++) {
        unsigned char bytes[256];
        ssize_t got = SYS(recv(fd, bytes, sizeof bytes, 0));
        struct icmphdr *answer = (void *)(bytes + (type == SOCK_RAW ? 20 : 0));
        if (got >= 8 && answer->type == ICMP_ECHOREPLY && answer->un.echo.sequence == 5)
            subject_pass();
    }
    subject_fail(__FILE__, __LINE__, "no answer to a ping");
}
