/* Sockets at an address that holds on one link only: its scope comes back, and they talk to each other. */
#include "subject.h"
#include <netinet/in.h>
#include <sys/socket.h>

static struct sockaddr_in6 link_local(void)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6};
    FILE *list = fopen("/proc/net/if_inet6", "re");
    char text[40];
    unsigned index, len, scope;
    while (list && fscanf(list, "%32s %x %x %x %*s %*s", text, &index, &len, &scope) == 4)
        if (scope == 0x20) {
            for (int i = 0; i < 16; i++)
                sscanf(text + 2 * i, "%2hhx", &address.sin6_addr.s6_addr[i]);
            address.sin6_scope_id = index;
        }
    if (list)
        fclose(list);
    if (!address.sin6_scope_id)
        subject_skip("no interface with a link-local address");
    return address;
}

static int bound(int type, struct sockaddr_in6 *address)
{
    int fd = SYS(socket(AF_INET6, type | SOCK_CLOEXEC, 0));
    socklen_t len = sizeof *address;
    address->sin6_port = 0;
    /* connections of the tree that was ended are in TIME_WAIT */
    SYS(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)));
    SYS(bind(fd, (void *)address, sizeof *address));
    SYS(getsockname(fd, (void *)address, &len));
    return fd;
}

static void check_address(int fd, bool peer, const struct sockaddr_in6 *wanted)
{
    struct sockaddr_in6 now = {0};
    socklen_t len = sizeof now;
    SYS(peer ? getpeername(fd, (void *)&now, &len) : getsockname(fd, (void *)&now, &len));
    CHECK(memcmp(&now.sin6_addr, &wanted->sin6_addr, 16) == 0, "socket %d has another address", fd);
    CHECK_EQ(now.sin6_port, wanted->sin6_port);
    CHECK_EQ(now.sin6_scope_id, wanted->sin6_scope_id);
}

static void check_talk(int from, int to)
{
    char bytes[8];
    CHECK_EQ(SYS(send(from, "hello", 5, 0)), 5);
    CHECK_EQ(recv(to, bytes, sizeof bytes, 0), 5);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sockaddr_in6 at = link_local(), inbox_at = at, sender_at = at, listener_at = at, ours_at = at;
    int inbox = bound(SOCK_DGRAM, &inbox_at), sender = bound(SOCK_DGRAM, &sender_at);
    SYS(connect(sender, (void *)&inbox_at, sizeof inbox_at));
    int listener = bound(SOCK_STREAM, &listener_at);
    SYS(listen(listener, 5));
    int ours = bound(SOCK_STREAM, &ours_at);
    SYS(connect(ours, (void *)&listener_at, sizeof listener_at));
    int accepted = SYS(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
    subject_hold();

    check_address(inbox, false, &inbox_at);
    check_address(sender, false, &sender_at);
    check_address(sender, true, &inbox_at);
    check_address(listener, false, &listener_at);
    check_address(ours, false, &ours_at);
    check_address(ours, true, &listener_at);
    check_address(accepted, false, &listener_at);
    check_address(accepted, true, &ours_at);
    check_talk(sender, inbox);
    check_talk(ours, accepted), check_talk(accepted, ours);
    int late = SYS(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(connect(late, (void *)&listener_at, sizeof listener_at));
    check_talk(late, SYS(accept4(listener, NULL, NULL, SOCK_CLOEXEC)));
    subject_pass();
}
