/* Connections of which one direction, or one end, is closed, with unread data; accepted ones keep the listener's name. */
#include "rights.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int write_shut[2], read_shut[2];
    char bytes[16];
    struct sockaddr_un address = {.sun_family = AF_UNIX}, seen;
    strcpy(address.sun_path, in_shm("socket"));
    SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, write_shut));
    SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, read_shut));
    SYS(send(write_shut[0], "rest", 4, 0));
    SYS(shutdown(write_shut[0], SHUT_WR));
    SYS(shutdown(read_shut[0], SHUT_RD));
    int listener = SYS(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(bind(listener, (void *)&address, sizeof address));
    SYS(listen(listener, 5));
    int client = SYS(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(connect(client, (void *)&address, sizeof address));
    int accepted = SYS(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
    SYS(send(client, "farewell", 8, 0));
    close(client); /* the client has gone */
    client = SYS(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(connect(client, (void *)&address, sizeof address));
    int server = SYS(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
    SYS(send(server, "good bye", 8, 0));
    close(server); /* the server has gone */
    subject_hold();

    CHECK_EQ(recv(write_shut[1], bytes, sizeof bytes, 0), 4);
    CHECK_EQ(recv(write_shut[1], bytes, sizeof bytes, 0), 0);
    SYS(send(write_shut[1], "back", 4, 0));
    CHECK_EQ(recv(write_shut[0], bytes, sizeof bytes, 0), 4);
    CHECK(send(write_shut[0], "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE, "the closed direction is open again");
    CHECK_EQ(recv(read_shut[0], bytes, sizeof bytes, 0), 0);
    CHECK(send(read_shut[1], "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE, "somebody reads again");
    SYS(send(read_shut[0], "x", 1, 0));
    CHECK_EQ(recv(read_shut[1], bytes, sizeof bytes, 0), 1);

    socklen_t len = sizeof seen;
    SYS(getsockname(accepted, (void *)&seen, &len));
    CHECK(strcmp(seen.sun_path, address.sun_path) == 0, "accepted at %s", seen.sun_path);
    CHECK_EQ(recv(accepted, bytes, sizeof bytes, 0), 8);
    CHECK_EQ(recv(accepted, bytes, sizeof bytes, 0), 0);
    CHECK_EQ(peer_of(accepted).pid, getpid());
    CHECK_EQ(recv(client, bytes, sizeof bytes, 0), 8);
    CHECK_EQ(recv(client, bytes, sizeof bytes, 0), 0);
    CHECK(send(client, "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE, "somebody reads again");
    CHECK(access(address.sun_path, F_OK) == 0, "the listener's path is gone");
    subject_pass();
}
