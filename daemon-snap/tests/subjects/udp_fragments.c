/* IPV6_MTU, which getsockopt(2) does not tell: above that size datagrams are divided. Alone, with errors asked for,
 * and on a socket that divides long datagrams itself. */
#include "subject.h"
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/socket.h>

#define HEADERS 48
enum { ALONE, ERRORS, SEGMENTS, UNTOUCHED, COUNT };
static const int sizes[COUNT] = {1280, 1400, 2000, 0};
static struct sockaddr_in6 sink_address;

/* Whether so many bytes leave in one packet. */
static bool fits(int fd, int len)
{
    static char bytes[65536];
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.header = {CMSG_LEN(sizeof(int)), IPPROTO_IPV6, IPV6_DONTFRAG}};
    *(int *)CMSG_DATA(&control.header) = 1;
    struct iovec data = {bytes, len};
    struct msghdr message = {&sink_address, sizeof sink_address, &data, 1, &control, sizeof control, 0};
    ssize_t sent = sendmsg(fd, &message, MSG_DONTWAIT);
    CHECK(sent == len || errno == EMSGSIZE, "%d bytes: %s", len, strerror(errno));
    return sent == len;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int sink = SYS(socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0)), fds[COUNT], on = 1, none = 0, segment = 500;
    socklen_t len = sizeof sink_address;
    SYS(bind(sink, (void *)&address, sizeof address));
    SYS(getsockname(sink, (void *)&sink_address, &len));
    for (int i = 0; i < COUNT; i++) {
        fds[i] = SYS(socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        SYS(bind(fds[i], (void *)&address, sizeof address));
        if (sizes[i])
            SYS(setsockopt(fds[i], IPPROTO_IPV6, IPV6_MTU, &sizes[i], sizeof sizes[i]));
    }
    SYS(setsockopt(fds[ERRORS], IPPROTO_IPV6, IPV6_RECVERR, &on, sizeof on));
    SYS(setsockopt(fds[SEGMENTS], IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof segment));
    subject_hold();

    for (int i = 0; i < COUNT; i++) {
        struct pollfd seen = {fds[i], POLLIN, 0};
        SYS(poll(&seen, 1, 0));
        CHECK_EQ(seen.revents, 0);
    }
    SYS(setsockopt(fds[SEGMENTS], IPPROTO_UDP, UDP_SEGMENT, &none, sizeof none));
    for (int i = 0; i < UNTOUCHED; i++) {
        CHECK(fits(fds[i], sizes[i] - HEADERS), "%d bytes do not fit into %d", sizes[i] - HEADERS, sizes[i]);
        CHECK(!fits(fds[i], sizes[i] - HEADERS + 1), "%d bytes fit into %d", sizes[i] - HEADERS + 1, sizes[i]);
    }
    CHECK(fits(fds[UNTOUCHED], 8000), "a socket without a size has one");
    subject_pass();
}
