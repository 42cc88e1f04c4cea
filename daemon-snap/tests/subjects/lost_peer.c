/* Connections to somebody outside, where they are let go: the daemon reads what had arrived, then the end. Variants accepted,
 * outgoing, connecting, unix. */
#include "subject.h"
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_in address = {.sin_family = AF_INET};

/* Somebody who is no descendant: listens, or connects to us; holds on until `go`. */
static void outsider(int listener)
{
    pid_t pid = SYS(fork());
    if (pid == 0) {
        setsid();
        if (fork() > 0)
            _exit(0);
        struct sockaddr_un here = {.sun_family = AF_UNIX};
        strcpy(here.sun_path, in_dir("outside"));
        socklen_t len = sizeof address;
        int fd = variant("unix") ? SYS(socket(AF_UNIX, SOCK_STREAM, 0)) : SYS(socket(AF_INET, SOCK_STREAM, 0)), peer = fd;
        if (variant("accepted")) {
            close(listener);
            SYS(connect(fd, (void *)&address, sizeof address));
        } else {
            if (variant("unix"))
                SYS(bind(fd, (void *)&here, sizeof here));
            else {
                address.sin_port = 0;
                SYS(bind(fd, (void *)&address, sizeof address));
                SYS(getsockname(fd, (void *)&address, &len));
            }
            SYS(listen(fd, variant("connecting") ? 0 : 1));
            char port[16];
            snprintf(port, sizeof port, "%d", ntohs(address.sin_port));
            publish("port", port);
            if (!variant("connecting"))
                peer = SYS(accept(fd, NULL, NULL));
        }
        if (peer != fd || variant("accepted"))
            SYS(send(peer, "last words", 10, 0));
        for (int i = 0; i < 4000 && access(in_dir("go"), F_OK) != 0; i++)
            nap_ms(5);
        if (access(in_dir("go"), F_OK) == 0) {
            char how[16];
            read_file(in_dir("go"), how, sizeof how);
            struct linger at_once = {1, 0};
            if (strncmp(how, "control", 7) == 0 && !variant("unix"))
                SYS(setsockopt(peer, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once));
        }
        _exit(0);
    }
    reap(pid);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t len = sizeof address;
    int listener = -1, fd = -1;
    char text[32];
    if (variant("connecting")) {
        /* a listener that has no room does not answer */
        outsider(-1);
        await_that(access(in_dir("port"), F_OK) == 0);
        read_file(in_dir("port"), text, sizeof text);
        address.sin_port = htons(atoi(text));
        struct tcp_info info = {0};
        for (int i = 0; i < 5 && info.tcpi_state != TCP_SYN_SENT; i++) {
            fd = SYS(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
            (void)!connect(fd, (void *)&address, sizeof address);
            nap_ms(20);
            len = sizeof info;
            SYS(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len));
        }
        CHECK_EQ(info.tcpi_state, TCP_SYN_SENT);
        subject_hold();
        if (!subject_was_restored)
            subject_pass();
        struct pollfd poll_fd = {fd, POLLIN | POLLOUT, 0};
        CHECK_EQ(poll(&poll_fd, 1, 1000), 1);
        CHECK(poll_fd.revents & POLLERR, "events 0x%x", poll_fd.revents);
        int error = 0;
        len = sizeof error;
        SYS(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len));
        CHECK_EQ(error, ECONNRESET);
        subject_pass();
    }
    if (variant("accepted")) {
        listener = SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        SYS(bind(listener, (void *)&address, sizeof address));
        SYS(getsockname(listener, (void *)&address, &len));
        SYS(listen(listener, 1));
        outsider(listener);
        fd = SYS(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
    } else {
        outsider(-1);
        await_that(access(in_dir("port"), F_OK) == 0);
        read_file(in_dir("port"), text, sizeof text);
        address.sin_port = htons(atoi(text));
        struct sockaddr_un there = {.sun_family = AF_UNIX};
        strcpy(there.sun_path, in_dir("outside"));
        fd = SYS(socket(variant("unix") ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        SYS(connect(fd, variant("unix") ? (void *)&there : (void *)&address, variant("unix") ? sizeof there : sizeof address));
    }
    SYS(setsockopt(fd, SOL_SOCKET, SO_PRIORITY, &(int){4}, sizeof(int)));
    await_that(recv(fd, text, sizeof text, MSG_PEEK | MSG_DONTWAIT) == 10);
    subject_hold();

    int value = 0;
    len = sizeof value;
    SYS(getsockopt(fd, SOL_SOCKET, SO_PRIORITY, &value, &len));
    CHECK_EQ(value, 4);
    nap_ms(subject_was_restored ? 0 : 200); /* until the peer has gone */
    CHECK_EQ(recv(fd, text, 10, 0), 10);
    CHECK(memcmp(text, "last words", 10) == 0, "received %.10s", text);
    struct pollfd poll_fd = {fd, POLLIN, 0};
    CHECK_EQ(poll(&poll_fd, 1, 1000), 1);
    ssize_t got = recv(fd, text, sizeof text, 0);
    CHECK(got == 0 || (got < 0 && errno == ECONNRESET), "recv gave %zd: %s", got, strerror(errno));
    if (!variant("unix"))
        CHECK(!subject_was_restored || got < 0, "not reset");
    CHECK(send(fd, "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE, "somebody listens");
    CHECK_EQ(recv(fd, text, sizeof text, 0), 0);
    subject_pass();
}
