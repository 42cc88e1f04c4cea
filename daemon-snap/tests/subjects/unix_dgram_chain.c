/* Datagram sockets each of which is connected to the next one, and was before the next one was connected: afterwards the kernel
 * would not allow it. */
#include "subject.h"
#include <sys/socket.h>
#include <sys/un.h>

enum { LINKS = 4 };

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fds[LINKS];
    struct sockaddr_un at[LINKS];
    socklen_t len = 0;
    for (int i = 0; i < LINKS; i++) {
        fds[i] = SYS(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        SYS(bind(fds[i], (struct sockaddr *)&(sa_family_t){AF_UNIX}, sizeof(sa_family_t)));
        len = sizeof at[i];
        SYS(getsockname(fds[i], (void *)&at[i], &len));
    }
    /* In no order of numbers or descriptors. */
    static const int order[LINKS] = {2, 0, 3, 1}; /* 2 to 0, 0 to 3, 3 to 1 */
    for (int i = 0; i < LINKS - 1; i++)
        SYS(connect(fds[order[i]], (void *)&at[order[i + 1]], len));
    subject_hold();

    char byte;
    for (int i = 0; i < LINKS - 1; i++) {
        struct sockaddr_un peer;
        len = sizeof peer;
        SYS(getpeername(fds[order[i]], (void *)&peer, &len));
        CHECK(memcmp(&peer, &at[order[i + 1]], len) == 0, "link %d leads elsewhere", i);
        bool is_last = i == LINKS - 2;
        ssize_t sent = send(fds[order[i]], "x", 1, 0);
        CHECK(is_last ? sent == 1 : sent < 0 && errno == EPERM, "link %d: %zd, %s", i, sent, strerror(errno));
    }
    CHECK_EQ(recv(fds[order[LINKS - 1]], &byte, 1, 0), 1);
    subject_pass();
}
