/* Two listeners on one port (SO_REUSEPORT) in two processes both serve afterwards. */
#include "subject.h"
#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>

static struct sockaddr_in address = {.sin_family = AF_INET};

static int make_listener(void)
{
    int listener = SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(setsockopt(listener, SOL_SOCKET, SO_REUSEPORT, &(int){1}, sizeof(int)));
    SYS(bind(listener, (void *)&address, sizeof address));
    SYS(listen(listener, 64));
    return listener;
}

/* Serves until nobody comes for 300 ms; says whether anybody came. */
static bool serve(int listener)
{
    struct pollfd ready = {listener, POLLIN, 0};
    bool served = false;
    while (poll(&ready, 1, 300) == 1) {
        close(SYS(accept4(listener, NULL, NULL, SOCK_CLOEXEC)));
        served = true;
    }
    return served;
}

static void child(void *unused)
{
    (void)unused;
    int listener = make_listener();
    member_hold("child");
    CHECK(serve(listener), "no client in the child");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t len = sizeof address;
    int listener = make_listener();
    SYS(getsockname(listener, (void *)&address, &len));
    pid_t pid = fork_member(child, NULL);
    await_member("child");
    subject_hold();
    for (int i = 0; i < 40; i++) {
        int client = SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        SYS(connect(client, (void *)&address, sizeof address));
        close(client);
    }
    CHECK(serve(listener), "no client in the parent");
    reap(pid);
    subject_pass();
}
