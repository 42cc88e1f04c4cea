/* Bound datagram sockets: one receives by its path, others are connected to it. */
#include "subject.h"
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_un at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    return address;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sockaddr_un inbox_at = at(in_shm("inbox")), sender_at = at(in_shm("sender")), from;
    int inbox = SYS(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    int sender = SYS(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    int unbound = SYS(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    int unconnected = SYS(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(bind(inbox, (void *)&inbox_at, sizeof inbox_at));
    SYS(bind(sender, (void *)&sender_at, sizeof sender_at));
    SYS(connect(sender, (void *)&inbox_at, sizeof inbox_at));
    SYS(connect(unbound, (void *)&inbox_at, sizeof inbox_at));
    subject_hold();

    char bytes[32];
    socklen_t len = sizeof from;
    CHECK(recv(inbox, bytes, sizeof bytes, 0) < 0 && errno == EAGAIN, "a message from nowhere");
    SYS(send(sender, "later", 5, 0));
    CHECK_EQ(recvfrom(inbox, bytes, sizeof bytes, 0, (void *)&from, &len), 5);
    CHECK(strcmp(from.sun_path, sender_at.sun_path) == 0, "sent by %s", from.sun_path);
    SYS(send(unbound, "nameless", 8, 0));
    len = sizeof from;
    CHECK_EQ(recvfrom(inbox, bytes, sizeof bytes, 0, (void *)&from, &len), 8);
    CHECK_EQ(len, 0);
    SYS(sendto(inbox, "back", 4, 0, (void *)&sender_at, sizeof sender_at));
    int refused = sendto(unconnected, "x", 1, MSG_NOSIGNAL, NULL, 0);
    CHECK(refused < 0 && (errno == ENOTCONN || errno == EOPNOTSUPP), "the unconnected stream socket sends");
    SYS(connect(unconnected, (void *)&inbox_at, sizeof inbox_at) < 0 && errno == EPROTOTYPE ? 0 : -1);
    subject_pass();
}
