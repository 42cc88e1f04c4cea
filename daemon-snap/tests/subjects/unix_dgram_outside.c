/* A datagram socket connected by path to a process outside the tree (as to /dev/log) is connected to it again. */
#include "subject.h"
#include <sys/socket.h>
#include <sys/un.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sockaddr_un address = {.sun_family = AF_UNIX}, peer;
    strcpy(address.sun_path, in_dir("log"));
    /* an orphan, so not of this tree; it answers one message with a file and ends */
    pid_t pid = SYS(fork());
    if (pid == 0) {
        setsid();
        if (fork() > 0)
            _exit(0);
        int inbox = SYS(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        SYS(bind(inbox, (void *)&address, sizeof address));
        publish("listening", "");
        struct timeval limit = {20, 0};
        SYS(setsockopt(inbox, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
        char bytes[32] = "";
        if (recv(inbox, bytes, sizeof bytes - 1, 0) > 0)
            publish("received", bytes);
        _exit(0);
    }
    reap(pid);
    await_that(access(in_dir("listening"), F_OK) == 0);
    int log = SYS(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    SYS(connect(log, (void *)&address, sizeof address));
    subject_hold();
    socklen_t len = sizeof peer;
    SYS(getpeername(log, (void *)&peer, &len));
    CHECK(strcmp(peer.sun_path, address.sun_path) == 0, "connected to %s", peer.sun_path);
    SYS(send(log, "a log line", 10, 0));
    char text[32];
    await_that(read_file(in_dir("received"), text, sizeof text) > 0);
    CHECK(strcmp(text, "a log line") == 0, "received %s", text);
    subject_pass();
}
