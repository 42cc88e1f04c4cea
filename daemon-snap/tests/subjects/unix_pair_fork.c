/* A socket pair between parent and child, with one request queued; descriptors can be passed over it afterwards. */
#include "subject.h"
#include <sys/socket.h>

static int ends[2];

static void child(void *unused)
{
    (void)unused;
    close(ends[0]);
    member_hold("child");
    char bytes[16], control[CMSG_SPACE(sizeof(int))];
    CHECK_EQ(recv(ends[1], bytes, sizeof bytes, 0), 7);
    CHECK(memcmp(bytes, "request", 7) == 0, "received %.7s", bytes);
    int fd = SYS(open(in_dir("passed"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    SYS(write(fd, "abc", 3));
    struct iovec iov = {"ok", 2};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    SYS(sendmsg(ends[1], &message, 0));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
    pid_t pid = fork_member(child, NULL);
    close(ends[1]);
    SYS(send(ends[0], "request", 7, 0));
    await_member("child");
    subject_hold();
    char bytes[16], control[CMSG_SPACE(sizeof(int))];
    struct iovec iov = {bytes, sizeof bytes};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    CHECK_EQ(recvmsg(ends[0], &message, MSG_CMSG_CLOEXEC), 2);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    CHECK(header && header->cmsg_type == SCM_RIGHTS, "no descriptor came");
    int fd;
    memcpy(&fd, CMSG_DATA(header), sizeof fd);
    CHECK_EQ(pread(fd, bytes, 3, 0), 3);
    CHECK_EQ(recv(ends[0], bytes, 1, 0), 0);
    reap(pid);
    subject_pass();
}
