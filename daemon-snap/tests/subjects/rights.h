/* Sending and receiving descriptors. */
#pragma once
#include "subject.h"
#include <sys/socket.h>
#include <sys/un.h>

static void UNUSED send_fds(int to, const char *bytes, int count, const int *fds)
{
    char control[CMSG_SPACE(sizeof(int) * 16)] = {0};
    struct iovec iov = {(void *)bytes, strlen(bytes)};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (count) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_len = CMSG_LEN(sizeof(int) * count);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        memcpy(CMSG_DATA(header), fds, sizeof(int) * count);
    }
    CHECK_EQ(SYS(sendmsg(to, &message, 0)), strlen(bytes));
}

/* Receives up to `size` bytes; returns how many descriptors came along. */
static int UNUSED receive_fds(int from, char *bytes, size_t size, int *fds, struct ucred *who)
{
    char control[512];
    struct iovec iov = {bytes, size - 1};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t got = SYS(recvmsg(from, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC));
    bytes[got] = 0;
    int count = 0;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_type == SCM_RIGHTS) {
            count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            memcpy(fds, CMSG_DATA(header), sizeof(int) * count);
        }
        if (header->cmsg_type == SCM_CREDENTIALS && who)
            memcpy(who, CMSG_DATA(header), sizeof *who);
    }
    return count;
}

static struct ucred UNUSED peer_of(int fd)
{
    struct ucred peer;
    socklen_t len = sizeof peer;
    SYS(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len));
    return peer;
}
