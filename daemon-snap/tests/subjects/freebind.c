/* Bound to addresses that this machine does not have, with IP_FREEBIND, which was turned off later. */
#include "subject.h"
#include <netinet/in.h>
#include <sys/socket.h>

static struct sockaddr_storage bound[4];

static int make(int family, int type, void *address, socklen_t len, int at)
{
    int fd = SYS(socket(family, type | SOCK_CLOEXEC, 0));
    SYS(setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &(int){1}, sizeof(int)));
    SYS(bind(fd, address, len));
    SYS(setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &(int){0}, sizeof(int)));
    if (type == SOCK_STREAM)
        SYS(listen(fd, 5));
    len = sizeof bound[at];
    SYS(getsockname(fd, (void *)&bound[at], &len));
    return fd;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    /* 192.0.2.77 and 2001:db8::77 are nobody's: they are for documents */
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0xc000024d)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    memcpy(&v6.sin6_addr, "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x77", 16);
    int fds[4] = {
        make(AF_INET, SOCK_STREAM, &v4, sizeof v4, 0),
        make(AF_INET, SOCK_DGRAM, &v4, sizeof v4, 1),
        make(AF_INET6, SOCK_STREAM, &v6, sizeof v6, 2),
        make(AF_INET6, SOCK_DGRAM, &v6, sizeof v6, 3),
    };
    subject_hold();

    for (int i = 0; i < 4; i++) {
        struct sockaddr_storage now = {0};
        socklen_t len = sizeof now;
        SYS(getsockname(fds[i], (void *)&now, &len));
        CHECK(memcmp(&now, &bound[i], len) == 0, "socket %d has another address", i);
        int free = -1;
        len = sizeof free;
        SYS(getsockopt(fds[i], IPPROTO_IP, IP_FREEBIND, &free, &len));
        CHECK_EQ(free, 0);
    }
    subject_pass();
}
