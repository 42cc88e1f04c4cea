/* EPOLLEXCLUSIVE sets of several processes on one listener, as nginx workers have them: one client wakes, is served once. */
#include "subject.h"
#include <arpa/inet.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define WORKERS 3
static int listener;

static int make_epoll(void)
{
    int epoll = SYS(epoll_create1(EPOLL_CLOEXEC));
    struct epoll_event event = {EPOLLIN | EPOLLEXCLUSIVE, {.u64 = 42}};
    SYS(epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event));
    return epoll;
}

static bool has_flag(int epoll)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", epoll);
    read_file(path, text, sizeof text);
    char *events = strstr(text, "events:");
    return events && strtoul(events + 7, NULL, 16) & EPOLLEXCLUSIVE;
}

static void worker(void *argument)
{
    char name[16];
    int epoll = make_epoll();
    snprintf(name, sizeof name, "worker%ld", (long)argument);
    member_hold(name);
    CHECK(has_flag(epoll), "EPOLLEXCLUSIVE was lost");
    for (;;) {
        struct epoll_event event;
        int got = epoll_wait(epoll, &event, 1, 5000);
        if (got < 0 && errno == EINTR)
            continue; /* a wait with a timeout is interrupted by a stop, as signal(7) says */
        CHECK(got == 1 && event.data.u64 == 42, "epoll_wait gave %d", got);
        int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (client < 0)
            continue;
        char byte;
        CHECK_EQ(read(client, &byte, 1), 1);
        SYS(write(client, &byte, 1));
        close(client);
        if (byte == 'q')
            return;
    }
}

static char ask(struct sockaddr_in *address, char byte)
{
    int client = SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(connect(client, (void *)address, sizeof *address));
    SYS(write(client, &byte, 1));
    char answer = 0;
    CHECK_EQ(read(client, &answer, 1), 1);
    close(client);
    return answer;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    listener = SYS(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    SYS(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)));
    SYS(bind(listener, (void *)&address, sizeof address));
    SYS(listen(listener, 64));
    SYS(getsockname(listener, (void *)&address, &len));
    pid_t pids[WORKERS];
    for (long i = 0; i < WORKERS; i++) {
        pids[i] = fork_member(worker, (void *)i);
        char name[16];
        snprintf(name, sizeof name, "worker%ld", i);
        await_member(name);
    }
    subject_hold();
    for (int i = 0; i < 20; i++)
        CHECK_EQ(ask(&address, 'a' + i % 10), 'a' + i % 10);
    for (int i = 0; i < WORKERS; i++)
        CHECK_EQ(ask(&address, 'q'), 'q');
    for (int i = 0; i < WORKERS; i++)
        reap(pids[i]);
    subject_pass();
}
