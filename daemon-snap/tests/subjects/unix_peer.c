/* Who made the other end (SO_PEERCRED, SO_PEERGROUPS): of pairs made by us, by a child that has ended, by another user; of
 * listeners, theirs too. */
#include "rights.h"
#include <grp.h>

static struct ucred before[6];

static void become_nobody(void)
{
    gid_t groups[] = {7, 8, 9};
    SYS(syscall(SYS_setgroups, 3, groups));
    SYS(syscall(SYS_setresgid, -1, 65533, -1));
    SYS(syscall(SYS_setresuid, -1, 65534, -1));
}

/* A pair and a listener made by a child as another user, handed over before it ends. */
static void child_makes(void *argument)
{
    int *ends = argument, pair[2];
    become_nobody();
    SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    send_fds(ends[1], "pair", 2, pair);
}

static int groups_of(int fd, gid_t *groups)
{
    socklen_t len = 16 * sizeof(gid_t);
    SYS(getsockopt(fd, SOL_SOCKET, 59 /* SO_PEERGROUPS */, groups, &len));
    return len / sizeof(gid_t);
}

static void same(int fd, struct ucred was, const char *what)
{
    struct ucred now = peer_of(fd);
    CHECK(now.pid == was.pid && now.uid == was.uid && now.gid == was.gid, "%s: peer %d %d %d, was %d %d %d", what,
          now.pid, now.uid, now.gid, was.pid, was.uid, was.gid);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int ends[2], own[2], theirs[16], gone[2];
    char bytes[16];
    gid_t groups[16];
    struct sockaddr_un address = {.sun_family = AF_UNIX}, peer;
    strcpy(address.sun_path, in_shm("socket"));
    SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
    SYS(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, own));
    SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, gone));
    reap(fork_member(child_makes, ends));
    CHECK_EQ(receive_fds(ends[0], bytes, sizeof bytes, theirs, NULL), 2);
    /* a listener of another user, whose ids the process has not kept */
    int listener = SYS(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(bind(listener, (void *)&address, sizeof address));
    SYS(chmod(address.sun_path, 0777));
    SYS(syscall(SYS_setresgid, -1, 4321, -1));
    SYS(listen(listener, 5));
    SYS(syscall(SYS_setresgid, -1, 0, -1));
    int client = SYS(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(connect(client, (void *)&address, sizeof address));
    int accepted = SYS(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
    close(gone[1]);
    int fds[6] = {own[0], theirs[0], theirs[1], client, accepted, gone[0]};
    for (int i = 0; i < 6; i++)
        before[i] = peer_of(fds[i]);
    CHECK_EQ(before[1].uid, 65534);
    CHECK_EQ(before[3].gid, 4321);
    CHECK_EQ(before[4].gid, 0);
    CHECK_EQ(groups_of(theirs[0], groups), 3);
    subject_hold();

    for (int i = 0; i < 6; i++)
        same(fds[i], before[i], "socket");
    CHECK_EQ(groups_of(theirs[1], groups), 3);
    CHECK(groups[0] == 7 && groups[2] == 9, "other groups");
    socklen_t len = sizeof peer;
    SYS(getpeername(client, (void *)&peer, &len));
    CHECK(strcmp(peer.sun_path, address.sun_path) == 0, "connected to %s", peer.sun_path);
    SYS(send(client, "x", 1, 0));
    CHECK_EQ(recv(accepted, bytes, sizeof bytes, MSG_DONTWAIT), 1);
    /* who connects now sees who listened then, in a process that lives */
    int late = SYS(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(connect(late, (void *)&address, sizeof address));
    same(late, before[3], "a new client");
    int pidfd = -1;
    len = sizeof pidfd;
    if (getsockopt(late, SOL_SOCKET, 77 /* SO_PEERPIDFD */, &pidfd, &len) == 0)
        SYS(syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0));
    CHECK_EQ(recv(gone[0], bytes, sizeof bytes, 0), 0);
    subject_pass();
}
