/* What the engine may carry or may refuse, but must not lose. One thing per variant. */
#include "subject.h"
#include <arpa/inet.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/un.h>

static void ends_at_once(void *unused)
{
    (void)unused;
    _exit(77);
}

/* More than half of the descriptors that the hard limit allows, each a description of its own, up to the limit. */
static void check_many_files(void)
{
    struct rlimit limit;
    SYS(getrlimit(RLIMIT_NOFILE, &limit));
    int last = (limit.rlim_max < 20000 ? limit.rlim_max : 20000) * 11 / 20;
    limit.rlim_cur = limit.rlim_max = last + 1;
    SYS(setrlimit(RLIMIT_NOFILE, &limit));
    char path[320];
    snprintf(path, sizeof path, "%s/content", subject_dir);
    int file = SYS(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600)), fd = file;
    CHECK_EQ(write(file, "0123456789", 10), 10);
    while (fd < last) {
        fd = SYS(open(path, O_RDONLY | O_CLOEXEC));
        SYS(lseek(fd, fd % 10, SEEK_SET));
    }
    /* saying that the state is made takes some */
    for (int i = 0; i < 8; i++)
        SYS(close(last - i));
    refusal_names("pid %d ", getpid());
    subject_hold();
    for (fd = file + 1; fd <= last - 8; fd++) {
        char digit;
        CHECK_EQ(read(fd, &digit, 1), 1);
        CHECK(digit == '0' + fd % 10, "descriptor %d reads %c", fd, digit);
    }
}

/* A process that may not map another page, and may not raise that limit. */
static void check_no_room(void)
{
    char text[4096];
    read_file("/proc/self/status", text, sizeof text);
    rlim_t all = strtoul(strstr(text, "VmSize:") + 7, NULL, 10) << 10;
    SYS(setrlimit(RLIMIT_AS, &(struct rlimit){all, all}));
    refusal_names("pid %d ", getpid());
    subject_hold();
    struct rlimit now;
    SYS(getrlimit(RLIMIT_AS, &now));
    CHECK(now.rlim_cur == all && now.rlim_max == all, "the limit is another one");
}

static void check_zombie(void)
{
    pid_t pid = fork_member(ends_at_once, NULL);
    siginfo_t info;
    SYS(waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
    refusal_names("pid %d ", pid);
    subject_hold();
    int status;
    CHECK_EQ(SYS(waitpid(pid, &status, 0)), pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 77, "the child's status is 0x%x", status);
}

static void check_udp_queued(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, from;
    socklen_t len = sizeof address;
    int bound = SYS(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    SYS(bind(bound, (void *)&address, len));
    SYS(getsockname(bound, (void *)&address, &len));
    SYS(sendto(bound, "to myself", 9, 0, (void *)&address, len));
    refusal_names("fd %d ", bound);
    subject_hold();
    char bytes[16];
    CHECK_EQ(recvfrom(bound, bytes, sizeof bytes, MSG_DONTWAIT, (void *)&from, &len), 9);
    CHECK(from.sin_port == address.sin_port, "the datagram has another sender");
}

/* The descriptor an epoll set knows an entry by is closed; a duplicate keeps the entry alive. */
static void check_epoll_orphan(void)
{
    int epoll = SYS(epoll_create1(EPOLL_CLOEXEC)), event_fd = SYS(eventfd(1, EFD_CLOEXEC));
    int duplicate = SYS(fcntl(event_fd, F_DUPFD_CLOEXEC, 200));
    struct epoll_event event = {EPOLLIN, {.u64 = 5}};
    SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, event_fd, &event));
    close(event_fd);
    refusal_names("fd %d ", epoll);
    subject_hold();
    CHECK_EQ(epoll_wait(epoll, &event, 1, 0), 1);
    CHECK_EQ(event.data.u64, 5);
    uint64_t count;
    SYS(read(duplicate, &count, 8));
    CHECK_EQ(epoll_wait(epoll, &event, 1, 0), 0);
}

/* The same with a number that meanwhile means something else. */
static void check_epoll_reused(void)
{
    int epoll = SYS(epoll_create1(EPOLL_CLOEXEC)), event_fd = SYS(eventfd(1, EFD_CLOEXEC));
    struct epoll_event event = {EPOLLIN, {.u64 = 5}}, seen;
    SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, event_fd, &event));
    SYS(fcntl(event_fd, F_DUPFD_CLOEXEC, 200));
    close(event_fd);
    CHECK_EQ(SYS(eventfd(1, EFD_CLOEXEC)), event_fd);
    event.data.u64 = 6;
    SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, event_fd, &event));
    refusal_names("fd %d ", epoll);
    subject_hold();
    struct epoll_event both[3];
    CHECK_EQ(epoll_wait(epoll, both, 3, 0), 2);
    CHECK_EQ(both[0].data.u64 + both[1].data.u64, 11);
    SYS(epoll_ctl(epoll, EPOLL_CTL_DEL, event_fd, NULL)); /* the newer one */
    CHECK_EQ(epoll_wait(epoll, &seen, 1, 0), 1);
    CHECK_EQ(seen.data.u64, 5);
}

static void check_deleted_cwd(void)
{
    SYS(mkdir(in_dir("gone"), 0755));
    SYS(chdir(in_dir("gone")));
    SYS(rmdir(in_dir("gone")));
    refusal_names("pid %d ", getpid());
    subject_hold();
    char path[256];
    CHECK(getcwd(path, sizeof path) == NULL && errno == ENOENT, "the working directory is back: %s", path);
}

static void check_inotify_queued(void)
{
    SYS(mkdir(in_dir("watched"), 0755));
    int fd = SYS(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    int wd = SYS(inotify_add_watch(fd, in_dir("watched"), IN_CREATE));
    write_file(in_dir("watched/file"), "", 0);
    refusal_names("fd %d ", fd);
    subject_hold();
    char buffer[512] __attribute__((aligned(8)));
    CHECK(read(fd, buffer, sizeof buffer) > 0, "the queued event was lost: %s", strerror(errno));
    struct inotify_event *event = (void *)buffer;
    CHECK(event->wd == wd && event->mask == IN_CREATE && strcmp(event->name, "file") == 0, "another event");
}

/* Bytes with the identity of who sent them. */
static void check_credentials_queued(void)
{
    int ends[2];
    SYS(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends));
    SYS(setsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &(int){1}, sizeof(int)));
    SYS(send(ends[0], "who", 3, 0));
    refusal_names("fd %d ", ends[1]);
    subject_hold();
    char bytes[8], control[CMSG_SPACE(sizeof(struct ucred))];
    struct iovec iov = {bytes, sizeof bytes};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    CHECK_EQ(recvmsg(ends[1], &message, MSG_DONTWAIT), 3);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    CHECK(header && header->cmsg_type == SCM_CREDENTIALS, "no credentials came along");
    struct ucred from;
    memcpy(&from, CMSG_DATA(header), sizeof from);
    CHECK_EQ(from.pid, getpid());
}

/* Datagrams that name who sent them. */
static void check_sender_queued(void)
{
    struct sockaddr_un inbox_at = {.sun_family = AF_UNIX}, sender_at = inbox_at, from;
    socklen_t len = sizeof from;
    char bytes[8];
    strcpy(inbox_at.sun_path, in_shm("inbox"));
    strcpy(sender_at.sun_path, in_shm("sender"));
    int inbox = SYS(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    int sender = SYS(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    SYS(bind(inbox, (void *)&inbox_at, sizeof inbox_at));
    SYS(bind(sender, (void *)&sender_at, sizeof sender_at));
    SYS(sendto(sender, "queued", 6, 0, (void *)&inbox_at, sizeof inbox_at));
    refusal_names("fd %d ", inbox);
    subject_hold();
    CHECK_EQ(recvfrom(inbox, bytes, sizeof bytes, MSG_DONTWAIT, (void *)&from, &len), 6);
    CHECK(strcmp(from.sun_path, sender_at.sun_path) == 0, "sent by %s", from.sun_path);
}

static void *after_main(void *unused)
{
    nap_ms(20); /* until the main thread has gone */
    refusal_names("pid %d ", getpid());
    subject_hold();
    subject_pass();
    return unused;
}

/* A file that was removed and then made anew under the same name is another file. */
static void check_replaced_file(void)
{
    char bytes[8] = "";
    write_file(in_dir("data"), "old", 3);
    int fd = SYS(open(in_dir("data"), O_RDONLY | O_CLOEXEC));
    SYS(unlink(in_dir("data")));
    write_file(in_dir("data"), "new", 3);
    refusal_names("fd %d ", fd);
    subject_hold();
    CHECK_EQ(read(fd, bytes, sizeof bytes), 3);
    CHECK(memcmp(bytes, "old", 3) == 0, "the descriptor reads %.3s", bytes);
    CHECK_EQ(read_file(in_dir("data"), bytes, sizeof bytes), 3);
    CHECK(memcmp(bytes, "new", 3) == 0, "the path reads %.3s", bytes);
}

static void check_socket_filter(void)
{
    int ends[2], value = 0;
    socklen_t len = sizeof value;
    SYS(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends));
    struct {
        uint16_t code;
        uint8_t jump_true, jump_false;
        uint32_t k;
    } code[] = {{0x06, 0, 0, 2}}; /* return 2: cut every message to two bytes */
    struct {
        unsigned short len;
        void *code;
    } program = {1, code};
    SYS(setsockopt(ends[1], SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program));
    SYS(setsockopt(ends[1], SOL_SOCKET, SO_LOCK_FILTER, &(int){1}, sizeof(int)));
    refusal_names("fd %d ", ends[1]);
    subject_hold();
    char bytes[8];
    SYS(send(ends[0], "12345", 5, 0));
    CHECK_EQ(recv(ends[1], bytes, sizeof bytes, 0), 2);
    SYS(getsockopt(ends[1], SOL_SOCKET, SO_LOCK_FILTER, &value, &len));
    CHECK_EQ(value, 1);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*check)(void);
    } variants[] = {{"zombie", check_zombie}, {"udp_queued", check_udp_queued},
                    {"epoll_orphan", check_epoll_orphan}, {"epoll_reused", check_epoll_reused},
                    {"deleted_cwd", check_deleted_cwd}, {"inotify_queued", check_inotify_queued},
                    {"credentials_queued", check_credentials_queued}, {"sender_queued", check_sender_queued},
                    {"replaced_file", check_replaced_file}, 
                    {"socket_filter", check_socket_filter},
                    {"many_files", check_many_files},
                    {"no_room", check_no_room}};
    subject_begin(argc, argv);
    if (variant("main_thread_gone")) {
        start_thread(after_main, NULL);
        pthread_exit(NULL);
    }
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++)
        if (variant(variants[i].name)) {
            variants[i].check();
            subject_pass();
        }
    subject_fail(__FILE__, __LINE__, "no variant %s", subject_variant);
}
