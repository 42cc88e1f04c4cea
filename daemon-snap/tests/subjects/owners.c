/* Owner and permissions of pipes and sockets, which nothing but fstat(2) and firewalls see. */
#include "subject.h"
#include <arpa/inet.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <sys/fsuid.h>
#include <sys/socket.h>

enum { MAX = 24 };
static int fds[MAX], count;
static struct stat before[MAX];

static void add(int fd)
{
    fds[count++] = SYS(fd);
}

/* The user that /proc/net tells of a port. */
static int user_of_port(const char *table, unsigned port)
{
    static char text[65536];
    read_file(table, text, sizeof text);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        unsigned at;
        int user;
        if (sscanf(line, " %*d: %*x:%x %*x:%*x %*x %*x:%*x %*x:%*x %*x %d", &at, &user) == 2 && at == port)
            return user;
    }
    return -1;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int ends[2];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    setfsgid(4321);
    setfsuid(1234);
    SYS(pipe2(ends, O_CLOEXEC));
    add(ends[0]);
    add(ends[1]);
    int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    add(udp);
    SYS(bind(udp, (void *)&address, sizeof address));
    SYS(getsockname(udp, (void *)&address, &len));
    add(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
    add(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    add(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends));
    add(ends[0]);
    add(ends[1]);
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    add(client);
    add(listener);
    SYS(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)));
    SYS(listen(listener, 1));
    struct sockaddr_in to;
    SYS(getsockname(listener, (void *)&to, &len));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    SYS(connect(client, (void *)&to, sizeof to));
    add(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
    setfsuid(0);
    setfsgid(0);
    /* given away and opened to others, with a set-id that a change of owner would take away */
    SYS(pipe2(ends, O_CLOEXEC));
    SYS(fchown(ends[0], 77, 88));
    SYS(fchmod(ends[0], 02666));
    add(ends[0]);
    add(ends[1]);
    int given = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    add(given);
    SYS(fchown(given, 77, 88));
    SYS(fchmod(given, 0640));
    for (int i = 0; i < count; i++)
        SYS(fstat(fds[i], &before[i]));
    unsigned port = ntohs(address.sin_port);
    CHECK_EQ(user_of_port("/proc/net/udp", port), 1234);
    subject_hold();
    for (int i = 0; i < count; i++) {
        struct stat now;
        SYS(fstat(fds[i], &now));
        CHECK(now.st_uid == before[i].st_uid && now.st_gid == before[i].st_gid && now.st_mode == before[i].st_mode,
              "descriptor %d of %d: %d:%d %o, was %d:%d %o", i, count, now.st_uid, now.st_gid, now.st_mode,
              before[i].st_uid, before[i].st_gid, before[i].st_mode);
    }
    CHECK_EQ(user_of_port("/proc/net/udp", port), 1234);
    subject_pass();
}
