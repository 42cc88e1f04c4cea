/* A TCP socket that has been taken back from its connection (AF_UNSPEC): its port, the sizes of its buffers, which nobody has
 * set, and another connection. */
#include "subject.h"
#include <arpa/inet.h>
#include <sys/socket.h>

static int get(int fd, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    SYS(getsockopt(fd, SOL_SOCKET, name, &value, &len));
    return value;
}

int main(int argc, char **argv)
{
    enum { BUF_LOCK = 72 };
    subject_begin(argc, argv);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, own = address, now;
    socklen_t len = sizeof address;
    int listener = SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(bind(listener, (void *)&address, len));
    SYS(listen(listener, 5));
    SYS(getsockname(listener, (void *)&address, &len));
    int client = SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(bind(client, (void *)&own, len));
    SYS(getsockname(client, (void *)&own, &len));
    SYS(connect(client, (void *)&address, len));
    close(SYS(accept(listener, NULL, NULL)));
    nap_ms(20);
    SYS(connect(client, &(struct sockaddr){.sa_family = AF_UNSPEC}, sizeof(struct sockaddr)));
    get(client, SO_ERROR);
    int lock = get(client, BUF_LOCK), room[2] = {get(client, SO_SNDBUF), get(client, SO_RCVBUF)};
    subject_hold();

    CHECK_EQ(get(client, BUF_LOCK), lock);
    CHECK_EQ(get(client, SO_SNDBUF), room[0]);
    CHECK_EQ(get(client, SO_RCVBUF), room[1]);
    CHECK_EQ(get(client, SO_ERROR), 0);
    SYS(getsockname(client, (void *)&now, &len));
    CHECK_EQ(now.sin_port, own.sin_port);
    SYS(connect(client, (void *)&address, len));
    int server = SYS(accept(listener, NULL, NULL));
    SYS(send(client, "again", 5, 0));
    char bytes[8];
    CHECK_EQ(recv(server, bytes, 8, 0), 5);
    subject_pass();
}
