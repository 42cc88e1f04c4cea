/* A listener with TCP-MD5 keys: afterwards too who signs gets in, and nobody else does. Variants v4, v6, mapped (a key for IPv4 on a
 * socket of both families). */
#include "subject.h"
#include <arpa/inet.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

static struct sockaddr_storage server;
static socklen_t server_len;

static struct sockaddr_storage loopback(bool v6, bool mapped, socklen_t *len)
{
    struct sockaddr_storage address = {0};
    if (v6) {
        struct sockaddr_in6 *six = (void *)&address;
        six->sin6_family = AF_INET6;
        six->sin6_addr = in6addr_loopback;
        if (mapped)
            inet_pton(AF_INET6, "::ffff:127.0.0.1", &six->sin6_addr);
        *len = sizeof *six;
    } else {
        struct sockaddr_in *four = (void *)&address;
        four->sin_family = AF_INET;
        four->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        *len = sizeof *four;
    }
    return address;
}

static void set_key(int fd, struct sockaddr_storage whose, uint8_t prefix, const char *key)
{
    struct tcp_md5sig request = {.tcpm_flags = TCP_MD5SIG_FLAG_PREFIX, .tcpm_prefixlen = prefix};
    memcpy(&request.tcpm_addr, &whose, sizeof whose);
    request.tcpm_keylen = strlen(key);
    memcpy(request.tcpm_key, key, strlen(key));
    SYS(setsockopt(fd, IPPROTO_TCP, TCP_MD5SIG_EXT, &request, sizeof request));
}

static bool gets_in(const char *key)
{
    int fd = SYS(socket(server.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (key)
        set_key(fd, server, server.ss_family == AF_INET ? 32 : variant("mapped") ? 32 : 128, key);
    struct timeval limit = {0, 300000};
    SYS(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit));
    bool in = connect(fd, (void *)&server, server_len) == 0;
    close(fd);
    return in;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    bool v6 = variant("v6") || variant("mapped");
    server = loopback(v6, variant("mapped"), &server_len);
    struct sockaddr_storage net = server, own = server;
    int fd = SYS(socket(server.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    set_key(fd, net, v6 ? variant("mapped") ? 8 : 64 : 8, "open sesame");
    if (variant("mapped"))
        ((struct sockaddr_in6 *)&own)->sin6_addr = in6addr_any;
    SYS(bind(fd, (void *)&own, server_len));
    SYS(getsockname(fd, (void *)&own, &server_len));
    ((struct sockaddr_in *)&server)->sin_port = ((struct sockaddr_in *)&own)->sin_port;
    SYS(listen(fd, 5));
    CHECK(gets_in("open sesame"), "who signs is kept out");
    close(SYS(accept(fd, NULL, NULL)));
    subject_hold();
    CHECK(gets_in("open sesame"), "who signs is kept out");
    CHECK(!gets_in("open barley"), "who signs with another key gets in");
    CHECK(!gets_in(NULL), "who does not sign gets in");
    subject_pass();
}
