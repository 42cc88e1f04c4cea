/* Two listeners on one port (SO_REUSEPORT) in two processes both serve afterwards. Variant "off": the option was
 * turned off when both were bound, and the kernel lets only one of them serve. */
#include "subject.h"
#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>

/* By parent and child. */
static int *served;
static struct sockaddr_in address = {.sin_family = AF_INET};

static int make_listener(void)
{
    int listener = SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(setsockopt(listener, SOL_SOCKET, SO_REUSEPORT, &(int){1}, sizeof(int)));
    SYS(bind(listener, (void *)&address, sizeof address));
    SYS(listen(listener, 64));
    return listener;
}

static void turn_off(int listener)
{
    SYS(setsockopt(listener, SOL_SOCKET, SO_REUSEPORT, &(int){0}, sizeof(int)));
}

static bool is_on(int listener)
{
    int on = -1;
    socklen_t len = sizeof on;
    SYS(getsockopt(listener, SOL_SOCKET, SO_REUSEPORT, &on, &len));
    return on;
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
    if (variant("off"))
        turn_off(listener);
    member_hold("child");
    CHECK_EQ(is_on(listener), !variant("off"));
    served[1] = serve(listener);
    CHECK(served[1] || variant("off"), "no client in the child");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    served = SYS(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    socklen_t len = sizeof address;
    int listener = make_listener();
    SYS(getsockname(listener, (void *)&address, &len));
    pid_t pid = fork_member(child, NULL);
    await_member("child");
    if (variant("off"))
        turn_off(listener);
    subject_hold();
    CHECK_EQ(is_on(listener), !variant("off"));
    for (int i = 0; i < 40; i++) {
        int client = SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        SYS(connect(client, (void *)&address, sizeof address));
        close(client);
    }
    served[0] = serve(listener);
    CHECK(served[0] || variant("off"), "no client in the parent");
    reap(pid);
    CHECK_EQ(served[0] + served[1], variant("off") ? 1 : 2);
    subject_pass();
}
