/* Datagrams of several senders, some of them gone, with names and credentials. Variants path, abstract. */
#include "rights.h"
#include <stddef.h>

static struct sockaddr_un named_address(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (variant("abstract"))
        snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "subject-%d-%s", getpid(), name);
    else
        strcpy(address.sun_path, in_shm(name));
    return address;
}

static socklen_t len_of(const struct sockaddr_un *address)
{
    bool abstract = !address->sun_path[0];
    return offsetof(struct sockaddr_un, sun_path) + strlen(address->sun_path + abstract) + 1;
}

static struct sockaddr_un inbox_at;

static void send_as(const char *name, const char *text, int keep)
{
    int fd = SYS(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (name) {
        struct sockaddr_un address = named_address(name);
        SYS(bind(fd, (void *)&address, len_of(&address)));
        if (!keep && !variant("abstract"))
            SYS(unlink(address.sun_path));
    }
    SYS(sendto(fd, text, strlen(text), 0, (void *)&inbox_at, len_of(&inbox_at)));
    if (!keep)
        close(fd);
}

static void child_sends(void *unused)
{
    (void)unused;
    SYS(syscall(SYS_setresgid, 4000, 4000, 4000));
    SYS(syscall(SYS_setresuid, 4001, 4001, 4001));
    send_as(NULL, "child", 0);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    inbox_at = named_address("inbox");
    int inbox = SYS(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    SYS(setsockopt(inbox, SOL_SOCKET, SO_PASSCRED, &(int){1}, sizeof(int)));
    SYS(bind(inbox, (void *)&inbox_at, len_of(&inbox_at)));
    if (!variant("abstract"))
        SYS(chmod(inbox_at.sun_path, 0777));
    SYS(chmod(subject_shm_dir, 0777));
    send_as("kept", "first", 1);
    send_as(NULL, "second", 0);
    send_as("gone", "third", 0);
    pid_t child = fork_member(child_sends, NULL);
    reap(child);
    send_as("gone too", "last", 0);
    subject_hold();

    static const struct {
        const char *text, *name;
        bool child;
    } wanted[] = {{"first", "kept", false}, {"second", NULL, false}, {"third", "gone", false}, {"child", NULL, true},
                  {"last", "gone too", false}};
    for (int i = 0; i < 5; i++) {
        char bytes[32] = "", control[256];
        struct sockaddr_un from = {0}, name = named_address(wanted[i].name ? wanted[i].name : "");
        struct iovec iov = {bytes, sizeof bytes - 1};
        struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control,
                                 .msg_name = &from, .msg_namelen = sizeof from};
        SYS(recvmsg(inbox, &message, MSG_DONTWAIT));
        CHECK(strcmp(bytes, wanted[i].text) == 0, "message %d is %s", i, bytes);
        if (wanted[i].name)
            CHECK(memcmp(from.sun_path, name.sun_path, sizeof name.sun_path) == 0, "%s came from %s", bytes,
                  from.sun_path + !from.sun_path[0]);
        else
            CHECK(message.msg_namelen == 0 || from.sun_path[0] == 0, "%s came from %s", bytes, from.sun_path);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        CHECK(header && header->cmsg_type == SCM_CREDENTIALS, "%s came without credentials", bytes);
        struct ucred who;
        memcpy(&who, CMSG_DATA(header), sizeof who);
        CHECK_EQ(who.pid, wanted[i].child ? child : getpid());
        CHECK_EQ(who.uid, wanted[i].child ? 4001 : 0);
        CHECK_EQ(who.gid, wanted[i].child ? 4000 : 0);
    }
    CHECK(recv(inbox, &(char){0}, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN, "one more message");
    subject_pass();
}
