/* SO_PEERCRED of a socket pair still names the process that made it. */
#include "subject.h"
#include <sys/socket.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int ends[2];
    SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
    struct ucred peer = {0};
    socklen_t len = sizeof peer;
    subject_hold();
    for (int i = 0; i < 2; i++) {
        SYS(getsockopt(ends[i], SOL_SOCKET, SO_PEERCRED, &peer, &len));
        CHECK_EQ(peer.uid, getuid());
        CHECK_EQ(peer.gid, getgid());
        CHECK_EQ(peer.pid, getpid());
    }
    subject_pass();
}
