/* Clients that have connected and that nobody has accepted yet. Variants stream, seqpacket. */
#include "rights.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int type = variant("stream") ? SOCK_STREAM : SOCK_SEQPACKET, clients[3];
    struct sockaddr_un address = {.sun_family = AF_UNIX}, name = {.sun_family = AF_UNIX}, seen;
    strcpy(address.sun_path, in_shm("socket"));
    strcpy(name.sun_path, in_shm("client"));
    int listener = SYS(socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    SYS(bind(listener, (void *)&address, sizeof address));
    SYS(listen(listener, 5));
    for (int i = 0; i < 3; i++) {
        clients[i] = SYS(socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
        if (i == 1)
            SYS(bind(clients[i], (void *)&name, sizeof name));
        SYS(connect(clients[i], (void *)&address, sizeof address));
    }
    int before = SYS(accept4(listener, NULL, NULL, SOCK_CLOEXEC)); /* one was accepted */
    subject_hold();

    char bytes[8];
    for (int i = 0; i < 3; i++) {
        socklen_t len = sizeof seen;
        memset(&seen, 0, sizeof seen);
        int server = i == 0 ? before : SYS(accept4(listener, (void *)&seen, &len, SOCK_CLOEXEC));
        char text[2] = {(char)('a' + i), 0};
        SYS(send(clients[i], text, 1, 0));
        CHECK_EQ(recv(server, bytes, sizeof bytes, MSG_DONTWAIT), 1);
        CHECK_EQ(bytes[0], 'a' + i);
        if (i == 1)
            CHECK(strcmp(seen.sun_path, name.sun_path) == 0, "the client is called %s", seen.sun_path);
        CHECK_EQ(peer_of(server).pid, getpid());
        CHECK_EQ(peer_of(clients[i]).pid, getpid());
    }
    CHECK(accept(listener, NULL, NULL) < 0 && errno == EAGAIN, "one more client");
    subject_pass();
}
