/* A service for the tests of systemd's features. Its count exists in memory only: SIGUSR1 adds one and writes the count and the
 * PID to the file that COUNT_FILE names, and a line to stderr. Each word of the command line is a habit:
 *   notify     READY=1 and STATUS= to systemd     watchdog  WATCHDOG=1 in time       reload  notify-reload on SIGHUP
 *   fork=FILE  leave the foreground, PID to FILE  fork      the same without file
 *   store=PORT descriptors to systemd's store, a listener on PORT of 127.0.0.1 among them; what the store has handed over goes to
 *              COUNT_FILE.store
 *   store-names  two eventfds there, under two names          store-epoll  an epoll set there that is open nowhere else
 *   store-locked a file there with a lock, open nowhere else   store-self   a pidfd of its own, which stays open
 *   listen     answer each connection and datagram of socket activation with the count
 *   hooks      write what fastboot tells to COUNT_FILE.events
 *   pressure   a trigger on the memory pressure file that systemd names; with each count a line about it in COUNT_FILE.pressure
 *   syslog     say the count to /dev/log too      touch=F   make file F at the start
 *   native     say the count to the journal's own socket, too
 *   rules=PORT listen on PORT of 127.0.0.1; with each count a line in COUNT_FILE.rules about what sockets of the start may do
 *   keyring    with each count, what is in the session keyring goes to COUNT_FILE.keyring
 *   far=ADDR   said before that: the far address, otherwise 127.0.0.2
 *   connect=PORT  be connected to PORT of 127.0.0.1; a line in COUNT_FILE.peer when that ends, and connect again
 *   groups     a control group below the unit's, with a limit, an empty one in it, and a child there
 */
#define _GNU_SOURCE
#include <errno.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

static unsigned count;
static int say_syslog, native = -1;
static int pressure = -1;
static int shows_keyring, rules_port, datagrams, unbound;
static int kept_counter = -1, kept_page = -1;
static int peer_port, peer = -1;
static const char *far_host = "127.0.0.2";

static void die(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static void notify(const char *text, int fd) {
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = { (void *) text, strlen(text) };
    struct msghdr message = { .msg_name = &to, .msg_iov = &iov, .msg_iovlen = 1 };
    int socket_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (!path || socket_fd < 0)
        die("NOTIFY_SOCKET");
    strncpy(to.sun_path, path, sizeof to.sun_path - 1);
    message.msg_namelen = offsetof(struct sockaddr_un, sun_path) + strlen(path);
    if (*path == '@')
        to.sun_path[0] = 0;
    if (fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET, head->cmsg_type = SCM_RIGHTS, head->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(head), &fd, sizeof fd);
    }
    if (sendmsg(socket_fd, &message, 0) < 0)
        die("sendmsg");
    close(socket_fd);
}

static void write_text(const char *path, const char *text) {
    char other[512];
    snprintf(other, sizeof other, "%s.new", path);
    int fd = open(other, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) < 0 || close(fd) < 0 || rename(other, path) < 0)
        die(path);
}

/* poll(2) tells an error of a pressure file without a trigger. */
static void look_at_pressure(void) {
    char path[512];
    struct pollfd polled = { .fd = pressure, .events = POLLPRI };
    snprintf(path, sizeof path, "%s.pressure", getenv("COUNT_FILE"));
    FILE *file = fopen(path, "ae");
    if (poll(&polled, 1, 0) < 0 || !file)
        die(path);
    fprintf(file, "%s %s\n", polled.revents & POLLERR ? "unarmed" : "armed", getenv("MEMORY_PRESSURE_WATCH"));
    if (fclose(file) != 0)
        die(path);
}

/* What systemd asks for, decoded: "some 200000 2000000", its default. */
static void watch_pressure(void) {
    static const char text[] = "some 200000 2000000";
    const char *path = getenv("MEMORY_PRESSURE_WATCH");
    if (!path || (pressure = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC)) < 0 ||
        write(pressure, text, sizeof text) != sizeof text)
        die("pressure");
    look_at_pressure();
}

/* sd_journal_send(3): fields in a datagram, over a socket that stays open. */
static void say_native(void) {
    struct sockaddr_un to = { .sun_family = AF_UNIX, .sun_path = "/run/systemd/journal/socket" };
    char text[128];
    int len = snprintf(text, sizeof text, "MESSAGE=native %u\nPRIORITY=6\n", count);
    if (sendto(native, text, len, 0, (struct sockaddr *) &to, sizeof to) != len)
        die("journal");
}

static struct sockaddr_in address_of(const char *host, int port) {
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
    inet_pton(AF_INET, host, &address.sin_addr);
    return address;
}

/* Nobody may send to the far address, or bind to the port behind ours, or both. */
static void make_sockets(void) {
    struct sockaddr_in own = address_of("127.0.0.1", rules_port);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    datagrams = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    unbound = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int bound = bind(listener, (struct sockaddr *) &own, sizeof own);
    /* It goes on without, as some daemons do. */
    if (bound < 0 && (errno == EPERM || errno == EACCES))
        fprintf(stderr, "port %d is forbidden\n", rules_port);
    else if (bound < 0 || listen(listener, 5) < 0)
        die("listener");
    if (datagrams < 0 || unbound < 0)
        die("sockets");
}

static void try_rules(void) {
    char path[512];
    struct sockaddr_in near = address_of("127.0.0.1", 9), far = address_of(far_host, 9),
                       next = address_of("127.0.0.1", rules_port + 1);
    int may_near = sendto(datagrams, "x", 1, 0, (struct sockaddr *) &near, sizeof near) == 1;
    int may_far = sendto(datagrams, "x", 1, 0, (struct sockaddr *) &far, sizeof far) == 1;
    /* EINVAL: it has been bound before. */
    int may_bind = bind(unbound, (struct sockaddr *) &next, sizeof next) == 0 || errno == EINVAL;
    snprintf(path, sizeof path, "%s.rules", getenv("COUNT_FILE"));
    FILE *file = fopen(path, "ae");
    if (!file || fprintf(file, "near %d far %d bind %d\n", may_near, may_far, may_bind) < 0 || fclose(file) != 0)
        die(path);
}

/* Owner, number of keys, whether the user's keyring is among them, and the invocation id there. */
static void show_keyring(void) {
    char about[128] = "", text[256], path[512];
    int keys[16], uid = -1;
    unsigned char id[16] = { 0 };
    long session = syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0);
    long user = syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_USER_KEYRING, 0);
    long bytes = syscall(SYS_keyctl, KEYCTL_READ, session, keys, sizeof keys);
    long key = syscall(SYS_keyctl, KEYCTL_SEARCH, session, "user", "invocation_id", 0);
    if (session < 0 || bytes < 0 || key < 0 || syscall(SYS_keyctl, KEYCTL_READ, key, id, sizeof id) != sizeof id)
        die("keyring");
    if (syscall(SYS_keyctl, KEYCTL_DESCRIBE, session, about, sizeof about) < 0 || sscanf(about, "keyring;%d;", &uid) != 1)
        die("keyring");
    int linked = 0;
    for (size_t i = 0; i < bytes / sizeof *keys; i++)
        linked |= keys[i] == user;
    int len = snprintf(text, sizeof text, "owner %d keys %d user %d invocation ", uid, (int) (bytes / sizeof *keys), linked);
    for (size_t i = 0; i < sizeof id; i++)
        len += snprintf(text + len, sizeof text - len, "%02x", id[i]);
    snprintf(path, sizeof path, "%s.keyring", getenv("COUNT_FILE"));
    write_text(path, text);
}

static void connect_to_peer(void) {
    struct sockaddr_in to = address_of("127.0.0.1", peer_port);
    for (int tries = 0; tries < 100; tries++) {
        peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(peer, (struct sockaddr *) &to, sizeof to) == 0)
            return;
        close(peer);
        usleep(50000);
    }
    die("connect");
}

static void hear_peer(void) {
    char path[512], byte;
    ssize_t got = recv(peer, &byte, 1, 0);
    if (got > 0)
        return;
    const char *how = got == 0 ? "it ended" : strerror(errno);
    snprintf(path, sizeof path, "%s.peer", getenv("COUNT_FILE"));
    FILE *file = fopen(path, "ae");
    if (!file || fprintf(file, "%s\n", how) < 0 || fclose(file) != 0)
        die(path);
    close(peer);
    connect_to_peer();
}

/* Of the own control group, or of the unit's where systemd has put us below it (DelegateSubgroup=). */
static void make_groups(void) {
    char line[512] = "", unit[600], path[700];
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (!file)
        die("cgroup");
    while (strncmp(line, "0::", 3))
        if (!fgets(line, sizeof line, file))
            die("cgroup");
    fclose(file);
    char *end = strstr(line, ".service");
    if (!end)
        die("service");
    end[strlen(".service")] = 0;
    snprintf(unit, sizeof unit, "/sys/fs/cgroup%s", line + 3);
    snprintf(path, sizeof path, "%s/inner", unit);
    if (mkdir(path, 0755) < 0)
        die(path);
    snprintf(path, sizeof path, "%s/inner/empty", unit);
    if (mkdir(path, 0750) < 0)
        die(path);
    snprintf(path, sizeof path, "%s/inner/cgroup.max.depth", unit);
    int limit = open(path, O_WRONLY | O_CLOEXEC);
    if (limit < 0 || write(limit, "7", 1) != 1 || close(limit) < 0)
        die(path);
    if (fork() == 0) {
        snprintf(path, sizeof path, "%s/inner/cgroup.procs", unit);
        int procs = open(path, O_WRONLY | O_CLOEXEC);
        if (procs < 0 || write(procs, "0", 1) != 1 || close(procs) < 0)
            die(path);
        for (;;)
            pause();
    }
}

static int page_with(const char *text) {
    int page = memfd_create("page", MFD_CLOEXEC);
    if (page < 0 || write(page, text, strlen(text)) < 0)
        die("memfd");
    return page;
}

/* Some stay open here, some are in the store only. */
static void fill_store(int port) {
    struct sockaddr_in own = address_of("127.0.0.1", port);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), page, ends[2];
    if (bind(listener, (struct sockaddr *) &own, sizeof own) < 0 || listen(listener, 5) < 0)
        die("listener");
    notify("FDSTORE=1\nFDNAME=listener", listener);
    notify("FDSTORE=1\nFDNAME=memory", page = page_with("remembered"));
    close(page);
    notify("FDSTORE=1\nFDNAME=counter", kept_counter = eventfd(5, EFD_CLOEXEC));
    notify("FDSTORE=1\nFDNAME=twin", page = page_with("one"));
    close(page);
    notify("FDSTORE=1\nFDNAME=twin", kept_page = page_with("two"));
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0 || write(ends[0], "letter", 6) != 6)
        die("pair");
    notify("FDSTORE=1\nFDNAME=pair\nFDPOLL=0", ends[1]);
    close(ends[1]);
    /* Dropped by systemd when this process ends. */
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        die("line");
    notify("FDSTORE=1\nFDNAME=line", ends[1]);
    close(ends[1]);
}

/* What systemd has handed over, a line for each. */
static void look_at_store(int fds) {
    char path[512], all[2048] = "", names[512], *rest = names;
    snprintf(path, sizeof path, "%s.store", getenv("COUNT_FILE"));
    snprintf(names, sizeof names, "%s", getenv("LISTEN_FDNAMES") ? getenv("LISTEN_FDNAMES") : "");
    for (int fd = 3; fd < 3 + fds; fd++) {
        char text[64] = "", *name = strsep(&rest, ":");
        uint64_t value;
        int listens = 0, type = 0;
        socklen_t size = sizeof listens;
        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0) {
            size = sizeof listens;
            getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size);
            if (listens)
                strcpy(text, "listens");
            else if (recv(fd, text, sizeof text - 1, MSG_PEEK | MSG_DONTWAIT) < 0)
                strcpy(text, strerror(errno));
        } else if (pread(fd, text, sizeof text - 1, 0) < 0) {
            /* No place to read at: it counts. */
            if (read(fd, &value, sizeof value) != sizeof value || write(fd, &value, sizeof value) != sizeof value)
                die("counter");
            snprintf(text, sizeof text, "%llu", (unsigned long long) value);
        }
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s %s\n", name ? name : "?", text);
    }
    write_text(path, fds ? all : "nothing\n");
}

static void use_kept(void) {
    uint64_t one = 1;
    char digit = '0' + count % 10;
    if (write(kept_counter, &one, sizeof one) != sizeof one || write(kept_page, &digit, 1) != 1)
        die("kept");
}

static void counted(void) {
    char text[64];
    count++;
    if (kept_counter >= 0)
        use_kept();
    snprintf(text, sizeof text, "%u %d\n", count, (int) getpid());
    write_text(getenv("COUNT_FILE"), text);
    fprintf(stderr, "counted %u\n", count);
    if (pressure >= 0)
        look_at_pressure();
    if (native >= 0)
        say_native();
    if (rules_port)
        try_rules();
    if (shows_keyring)
        show_keyring();
    if (say_syslog)
        syslog(LOG_INFO, "syslog %u", count);
}

static void heard(int hooks) {
    static const char *const names[] = { "", "BeforeSnapshot", "AfterSnapshot", "AfterRestore" };
    char path[512];
    enum fastboot_event event = fastboot_hooks_next(hooks);
    if (event == FASTBOOT_NOTHING)
        return;
    snprintf(path, sizeof path, "%s.events", getenv("COUNT_FILE"));
    FILE *file = fopen(path, "ae");
    if (!file || fprintf(file, "%s\n", names[event]) < 0 || fclose(file) != 0)
        die(path);
    if (fastboot_hooks_done(hooks, NULL) < 0)
        die("hooks");
}

static void leave_foreground(const char *pid_file) {
    int ready[2];
    if (pipe(ready) < 0)
        die("pipe");
    if (fork() != 0) {
        char byte;
        _exit(read(ready[0], &byte, 1) == 1 ? 0 : 1);
    }
    setsid();
    if (fork() != 0)
        _exit(0);
    if (*pid_file) {
        char text[16];
        snprintf(text, sizeof text, "%d\n", (int) getpid());
        write_text(pid_file, text);
    }
    if (write(ready[1], "x", 1) != 1)
        die("pipe");
    close(ready[0]);
    close(ready[1]);
}

int main(int argc, char **argv) {
    int hooks = -1, is_notify = 0, is_watchdog = 0, is_reload = 0, listens = 0, is_fork = 0;
    const char *pid_file = "", *touched = NULL;
    for (int i = 1; i < argc; i++) {
        is_notify |= !strcmp(argv[i], "notify");
        is_watchdog |= !strcmp(argv[i], "watchdog");
        is_reload |= !strcmp(argv[i], "reload");
        if (!strcmp(argv[i], "hooks") && (hooks = fastboot_hooks_open()) < 0)
            die("hooks");
        listens |= !strcmp(argv[i], "listen");
        say_syslog |= !strcmp(argv[i], "syslog");
        if (!strncmp(argv[i], "fork", 4))
            is_fork = 1, pid_file = argv[i][4] ? argv[i] + 5 : "";
        if (!strcmp(argv[i], "pressure"))
            watch_pressure();
        if (!strncmp(argv[i], "connect=", 8)) {
            peer_port = atoi(argv[i] + 8);
            connect_to_peer();
        }
        if (!strncmp(argv[i], "far=", 4))
            far_host = argv[i] + 4;
        if (!strncmp(argv[i], "rules=", 6)) {
            rules_port = atoi(argv[i] + 6);
            make_sockets();
        }
        if (!strcmp(argv[i], "native") && (native = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) < 0)
            die("journal");
        shows_keyring |= !strcmp(argv[i], "keyring");
        if (!strcmp(argv[i], "groups"))
            make_groups();
        if (!strncmp(argv[i], "touch=", 6))
            touched = argv[i] + 6;
        if (!strncmp(argv[i], "store=", 6)) {
            int handed = atoi(getenv("LISTEN_FDS") ? getenv("LISTEN_FDS") : "0");
            look_at_store(handed);
            if (!handed)
                fill_store(atoi(argv[i] + 6));
        }
        if (!strcmp(argv[i], "store-names")) {
            notify("FDSTORE=1\nFDNAME=first", eventfd(0, EFD_CLOEXEC));
            notify("FDSTORE=1\nFDNAME=second", eventfd(0, EFD_CLOEXEC));
        }
        if (!strcmp(argv[i], "store-self"))
            notify("FDSTORE=1\nFDNAME=self", syscall(SYS_pidfd_open, getpid(), 0));
        if (!strcmp(argv[i], "store-locked")) {
            int file = open("/etc/hostname", O_RDONLY | O_CLOEXEC);
            if (flock(file, LOCK_SH) < 0)
                die("flock");
            notify("FDSTORE=1\nFDNAME=locked", file);
            close(file);
        }
        if (!strcmp(argv[i], "store-epoll")) {
            int set = epoll_create1(EPOLL_CLOEXEC);
            notify("FDSTORE=1\nFDNAME=set", set);
            close(set);
        }
    }
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigaddset(&mask, SIGHUP);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    if (touched)
        write_text(touched, "made at the start\n");
    if (is_fork)
        leave_foreground(pid_file);
    if (say_syslog)
        openlog("unit-subject", LOG_PID | LOG_NDELAY, LOG_DAEMON);
    int first = listens ? 3 : 0, fds = listens ? atoi(getenv("LISTEN_FDS") ? getenv("LISTEN_FDS") : "0") : 0;
    struct pollfd polled[10] = { { .fd = signalfd(-1, &mask, SFD_CLOEXEC), .events = POLLIN } };
    for (int i = 0; i < fds && i < 7; i++)
        polled[i + 1] = (struct pollfd) { .fd = first + i, .events = POLLIN };
    polled[1 + fds] = (struct pollfd) { .fd = hooks, .events = POLLIN };
    int wait_ms = is_watchdog ? atoi(getenv("WATCHDOG_USEC") ? getenv("WATCHDOG_USEC") : "0") / 3000 : -1;
    if (is_notify || is_reload)
        notify("READY=1\nSTATUS=counting", -1);
    for (;;) {
        polled[2 + fds] = (struct pollfd) { .fd = peer, .events = POLLIN };
        int got = poll(polled, 3 + fds, wait_ms);
        if (is_watchdog)
            notify("WATCHDOG=1", -1);
        if (got <= 0)
            continue;
        if (polled[0].revents) {
            struct signalfd_siginfo info;
            if (read(polled[0].fd, &info, sizeof info) == sizeof info && info.ssi_signo == SIGUSR1)
                counted();
            else if (is_reload) {
                char text[96];
                struct timespec now;
                clock_gettime(CLOCK_MONOTONIC, &now);
                snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%llu",
                         (unsigned long long) now.tv_sec * 1000000ull + now.tv_nsec / 1000);
                notify(text, -1);
                counted();
                notify("READY=1\nSTATUS=loaded again", -1);
            } else
                counted();
        }
        if (polled[1 + fds].revents)
            heard(hooks);
        if (polled[2 + fds].revents)
            hear_peer();
        for (int i = 1; i <= fds; i++) {
            char text[32], received[256];
            struct stat seen;
            if (!polled[i].revents || fstat(polled[i].fd, &seen) < 0)
                continue;
            snprintf(text, sizeof text, "%u\n", count);
            int type = 0;
            socklen_t size = sizeof type;
            if (S_ISFIFO(seen.st_mode)) {
                if (read(polled[i].fd, received, sizeof received) > 0)
                    counted();
            } else if (getsockopt(polled[i].fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type != SOCK_STREAM) {
                if (recv(polled[i].fd, received, sizeof received, 0) > 0)
                    counted();
            } else {
                int client = accept4(polled[i].fd, NULL, NULL, SOCK_CLOEXEC);
                if (client >= 0) {
                    if (write(client, text, strlen(text)) < 0)
                        fprintf(stderr, "client: %s\n", strerror(errno));
                    close(client);
                }
            }
        }
    }
}
