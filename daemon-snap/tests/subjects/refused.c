/* One thing that cannot be carried, per variant. The dump must name it and leave the subject as it is. */
#include "subject.h"
#include <arpa/inet.h>
#include <linux/aio_abi.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <linux/landlock.h>
#include <linux/net_tstamp.h>
#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <linux/xfrm.h>
#include <mqueue.h>
#include <net/ethernet.h>
#include <netinet/udp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>

/* Names a descriptor that the refusal must mention. */
static int named(int fd)
{
    SYS(fd);
    refusal_names("fd %d ", fd);
    return fd;
}

static int ring, ring_pipe[2];
static char ring_buffer[4096];

static void make_io_uring(void)
{
    struct io_uring_params params = {0};
    if (variant("ring_polling"))
        params.flags = IORING_SETUP_SQPOLL;
    if (variant("ring_single"))
        params.flags = IORING_SETUP_SINGLE_ISSUER;
    if (variant("ring_disabled"))
        params.flags = IORING_SETUP_R_DISABLED;
    ring = syscall(SYS_io_uring_setup, 4, &params);
    if (ring < 0)
        subject_skip("io_uring is switched off");
    if (variant("ring_number")) {
        struct io_uring_rsrc_update number = {.offset = -1u, .data = ring};
        CHECK_EQ(syscall(SYS_io_uring_register, ring, IORING_REGISTER_RING_FDS, &number, 1), 1);
        SYS(close(ring));
        refusal_names("thread %d ", getpid());
        return;
    }
    named(ring);
    int event = -1, person = 0;
    SYS(pipe2(ring_pipe, O_CLOEXEC));
    struct iovec buffer = {ring_buffer, sizeof ring_buffer};
    if (variant("ring_event"))
        SYS(syscall(SYS_io_uring_register, ring, IORING_REGISTER_EVENTFD, (event = SYS(eventfd(0, EFD_CLOEXEC)), &event), 1));
    if (variant("ring_files"))
        SYS(syscall(SYS_io_uring_register, ring, IORING_REGISTER_FILES, ring_pipe, 1));
    if (variant("ring_buffers"))
        SYS(syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &buffer, 1));
    if (variant("ring_credentials"))
        person = SYS(syscall(SYS_io_uring_register, ring, IORING_REGISTER_PERSONALITY, NULL, 0));
    if (!person && !variant("ring_in_flight"))
        return;
    /* In flight: a read from a pipe that nothing is written to. */
    char *queues = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
    struct io_uring_sqe *request = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
    CHECK(queues != MAP_FAILED && (void *)request != MAP_FAILED, "mmap: %s", strerror(errno));
    *request = (struct io_uring_sqe){.opcode = IORING_OP_READ, .fd = ring_pipe[0], .len = 1, .addr = (long)ring_buffer};
    if (person)
        *request = (struct io_uring_sqe){.opcode = IORING_OP_NOP, .personality = person};
    *(unsigned *)(queues + params.sq_off.tail) = 1;
    CHECK_EQ(syscall(SYS_io_uring_enter, ring, 1, 0, 0, NULL, 0), 1);
}

/* It still reads what comes. */
static void check_ring(void)
{
    SYS(write(ring_pipe[1], "r", 1));
    CHECK_EQ(syscall(SYS_io_uring_enter, ring, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0), 0);
    CHECK_EQ(ring_buffer[0], 'r');
}

static int tcp[2];

static void give_away(int keep, int give);

static void make_tcp_established(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int listener = SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(bind(listener, (void *)&address, len));
    SYS(listen(listener, 1));
    SYS(getsockname(listener, (void *)&address, &len));
    tcp[0] = named(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(connect(tcp[0], (void *)&address, len));
    tcp[1] = SYS(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
    if (variant("tcp_closing")) {
        /* one has closed its direction and the other has too, behind more than there is room for */
        refusal_names("fd %d ", tcp[1]);
        SYS(shutdown(tcp[0], SHUT_WR));
        static char zeros[65536];
        while (send(tcp[1], zeros, sizeof zeros, MSG_DONTWAIT) > 0 || (nap_ms(20), send(tcp[1], zeros, sizeof zeros, MSG_DONTWAIT) > 0))
            ;
        SYS(shutdown(tcp[1], SHUT_WR));
    } else
        give_away(tcp[0], tcp[1]);
}

static int lonely_set;

static void signalfd_keeper(void *unused)
{
    (void)unused;
    SYS(close(lonely_set));
    member_hold("keeper");
}

/* The parent has added a signalfd and closed it, the child has the signalfd and not the set. */
static pid_t make_lonely_watch(void)
{
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR2);
    lonely_set = named(epoll_create1(0));
    int fd = SYS(signalfd(-1, &mask, SFD_CLOEXEC));
    struct epoll_event event = {EPOLLIN, {.u64 = 1}};
    SYS(epoll_ctl(lonely_set, EPOLL_CTL_ADD, fd, &event));
    pid_t pid = fork_member(signalfd_keeper, NULL);
    await_member("keeper");
    SYS(close(fd));
    return pid;
}

/* Bound in a directory that nobody is in any more. */
static void make_relative(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "relative"};
    SYS(chdir(subject_dir));
    if (variant("relative_lost")) {
        SYS(mkdir("below", 0755));
        strcpy(address.sun_path, "below/relative");
    } else if (variant("moved_directory")) {
        SYS(mkdir("before", 0755));
        strcpy(address.sun_path, in_dir("before/name"));
    }
    SYS(bind(named(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)), (void *)&address, sizeof address));
    if (variant("relative_lost"))
        SYS(rename("below/relative", "other"));
    else if (variant("moved_directory"))
        SYS(rename("before", "behind"));
    else {
        SYS(rename("relative", "other"));
        SYS(mkfifo("relative", 0600));
    }
    SYS(chdir(variant("taken_name") ? subject_dir : "/"));
}

static void make_shared_name(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, in_dir("name"));
    int first = SYS(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)), second = SYS(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    int client = named(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    SYS(bind(first, (void *)&address, sizeof address));
    SYS(connect(client, (void *)&address, sizeof address));
    SYS(unlink(address.sun_path));
    SYS(bind(second, (void *)&address, sizeof address));
}

static int netlink_fd = -1;

static void make_netlink(void)
{
    bool connector = variant("netlink_connector");
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = connector ? 1 : 0};
    netlink_fd = named(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, connector ? NETLINK_CONNECTOR : NETLINK_USERSOCK));
    SYS(bind(netlink_fd, (void *)&address, sizeof address));
    socklen_t len = sizeof address;
    SYS(getsockname(netlink_fd, (void *)&address, &len));
    if (!connector)
        SYS(sendto(netlink_fd, "to myself", 9, 0, (void *)&address, sizeof address));
}

static void make_ebpf_filter(void)
{
    struct bpf_insn code[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 0}, {.code = BPF_JMP | BPF_EXIT}};
    union bpf_attr attributes = {.prog_type = BPF_PROG_TYPE_SOCKET_FILTER, .insns = (uintptr_t)code, .insn_cnt = 2,
                                 .license = (uintptr_t) "GPL"};
    int program = syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof attributes);
    if (program < 0)
        subject_skip("no eBPF");
    int fd = named(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    SYS(setsockopt(fd, SOL_SOCKET, SO_ATTACH_BPF, &program, sizeof program));
    close(program);
}

static void make_counting_socket(void)
{
    int fd = named(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    int on = 1, stamps = SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_OPT_ID;
    if (variant("zerocopy"))
        SYS(setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on));
    else
        SYS(setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &stamps, sizeof stamps));
}

static void make_append_only(void)
{
    char path[320];
    snprintf(path, sizeof path, "%s/appended", subject_dir);
    int fd = named(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600)), flags = 0;
    SYS(unlink(path));
    if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0)
        subject_skip("attributes of files");
    flags |= FS_APPEND_FL;
    SYS(ioctl(fd, FS_IOC_SETFLAGS, &flags));
}

static void make_flow_label(void)
{
    int fd = named(socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    /* struct in6_flowlabel_req: leased exclusively */
    struct {
        struct in6_addr to;
        uint32_t label;
        uint8_t action, share;
        uint16_t flags, expires, linger;
        uint32_t pad;
    } lease = {IN6ADDR_LOOPBACK_INIT, htonl(0x12345 ^ (getpid() & 0xffff)), 0, 1, 3, 0, 0, 0};
    SYS(setsockopt(fd, IPPROTO_IPV6, 32 /* IPV6_FLOWLABEL_MGR */, &lease, sizeof lease));
}

/* In a network of its own: others would be suspected too. */
static void make_ipsec_policy(void)
{
    SYS(unshare(CLONE_NEWNET));
    int fd = named(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    struct xfrm_userpolicy_info policy = {.dir = XFRM_POLICY_OUT, .action = XFRM_POLICY_ALLOW, .sel.family = AF_INET};
    if (setsockopt(fd, IPPROTO_IP, IP_XFRM_POLICY, &policy, sizeof policy) < 0 && errno == ENOPROTOOPT)
        subject_skip("IPsec");
    CHECK_EQ(errno, 0);
}

/* Opened in a network namespace that the process has left again. */
static void make_foreign_netlink(void)
{
    int own = SYS(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
    SYS(unshare(CLONE_NEWNET));
    named(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    SYS(setns(own, CLONE_NEWNET));
    close(own);
}

static void make_packet_ring(void)
{
    int fd = named(socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(ETH_P_LOOP)));
    struct tpacket_req ring = {4096, 4, 2048, 8};
    SYS(setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &ring, sizeof ring));
}

static int sysv_id = -1, sysv_kind;

/* A process that is no child of ours any more uses the object, and lives until the subject is told to go on. */
static void let_outsider(void (*use)(void))
{
    pid_t pid = SYS(fork());
    if (pid == 0) {
        setsid();
        if (fork() > 0)
            _exit(0);
        use();
        write_file(in_dir("used"), "", 0);
        for (int i = 0; i < 4000 && access(in_dir("go"), F_OK) != 0; i++)
            nap_ms(5);
        _exit(0);
    }
    reap(pid);
    await_that(access(in_dir("used"), F_OK) == 0);
}

static void attach_segment(void)
{
    SYS(shmat(sysv_id, NULL, 0));
}

static void make_sysv_shm(void)
{
    sysv_id = SYS(shmget(IPC_PRIVATE, 65536, IPC_CREAT | 0600));
    refusal_names("(shmid %d)", sysv_id);
    if (variant("sysv_unattached")) {
        let_outsider(attach_segment);
        return;
    }
    char *area = SYS(shmat(sysv_id, NULL, 0));
    SYS(munmap(area + 32768, 32768));
    area[0] = 1;
}

static void raise_semaphore(void)
{
    SYS(semop(sysv_id, &(struct sembuf){.sem_num = variant("sysv_undo") ? 1 : 2, .sem_op = 1}, 1));
}

static void take_message(void)
{
    struct {
        long type;
        char text[8];
    } message;
    SYS(msgrcv(sysv_id, &message, 8, 0, 0));
}

/* Used by us and by others. */
static void make_sysv_others(void)
{
    if (variant("sysv_queue")) {
        sysv_kind = 2;
        sysv_id = SYS(msgget(IPC_PRIVATE, IPC_CREAT | 0600));
        SYS(msgsnd(sysv_id, &(struct { long type; char text[8]; }){1, "queued"}, 8, 0));
        let_outsider(take_message);
        refusal_names("(msqid %d)", sysv_id);
        return;
    }
    sysv_kind = 1;
    sysv_id = SYS(semget(IPC_PRIVATE, 3, IPC_CREAT | 0600));
    short undo = variant("sysv_undo") ? SEM_UNDO : 0;
    SYS(semop(sysv_id, &(struct sembuf){.sem_num = 1, .sem_op = 2, .sem_flg = undo}, 1));
    let_outsider(raise_semaphore);
    refusal_names("(semid %d)", sysv_id);
}

static void become_other_user(void)
{
    SYS(setresuid(-1, 3461, -1));
}

/* Made and not used, by a user that somebody else is too. */
static void make_unclear_queue(void)
{
    let_outsider(become_other_user);
    become_other_user();
    sysv_kind = 2;
    sysv_id = SYS(msgget(IPC_PRIVATE, IPC_CREAT | 0600));
    refusal_names("(%d)", sysv_id);
}

static char queue_name[64];

static void open_posix_queue(void)
{
    SYS(mq_open(queue_name, O_RDONLY));
}

static void make_posix_queue(void)
{
    snprintf(queue_name, sizeof queue_name, "/subject-%d", getpid());
    mqd_t queue = SYS(mq_open(queue_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600, NULL));
    if (variant("mqueue_outside")) {
        let_outsider(open_posix_queue);
        refusal_names("(%s)", queue_name);
    } else {
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 7};
        SYS(mq_notify(queue, &event));
        named(queue);
    }
    SYS(mq_unlink(queue_name));
}

static void make_unfinished_datagram(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = named(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)), on = variant("udp_corked");
    SYS(setsockopt(fd, IPPROTO_UDP, UDP_CORK, &on, sizeof on));
    SYS(connect(fd, (void *)&address, sizeof address));
    SYS(send(fd, "half", 4, on ? 0 : MSG_MORE));
}

__attribute__((noinline)) static int stopped_at(int x)
{
    __asm__ volatile("nop");
    return x + 1;
}

/* As a debugger does it. */
static void set_breakpoint(unsigned char byte)
{
    int memory = SYS(open("/proc/self/mem", O_RDWR | O_CLOEXEC));
    SYS(pwrite(memory, &byte, 1, (off_t)(uintptr_t)stopped_at));
    close(memory);
}

static void remove_sysv(void)
{
    if (sysv_id >= 0)
        SYS(sysv_kind == 1 ? semctl(sysv_id, 0, IPC_RMID) : sysv_kind == 2 ? msgctl(sysv_id, IPC_RMID, NULL)
                                                                         : shmctl(sysv_id, IPC_RMID, NULL));
}

/* struct user_desc of <asm/ldt.h>. */
static void make_ldt(void)
{
    struct {
        unsigned entry, base, limit, flags;
    } entry = {0, 0, 0xfffff, 0x51};
    if (syscall(SYS_modify_ldt, 1, &entry, sizeof entry) < 0)
        subject_skip("no modify_ldt");
    refusal_names("pid %d ", getpid());
}

static void make_secret_memory(void)
{
    int fd = syscall(447, O_CLOEXEC);
    if (fd < 0)
        subject_skip("no memfd_secret");
    SYS(ftruncate(named(fd), 4096));
    char *area = SYS(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    area[0] = 's';
}

/* Raises the number of huge pages for a moment where there are none. */
static void make_hugetlb(void)
{
    char before[32] = "";
    void *area = mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    if (area == MAP_FAILED && read_file("/proc/sys/vm/nr_hugepages", before, sizeof before) > 0) {
        char more[32];
        snprintf(more, sizeof more, "%d", atoi(before) + 2);
        write_file("/proc/sys/vm/nr_hugepages", more, strlen(more));
        area = mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
        if (area != MAP_FAILED)
            *(char *)area = 1;
        write_file("/proc/sys/vm/nr_hugepages", before, strlen(before));
    }
    if (area == MAP_FAILED)
        subject_skip("no huge pages");
    *(char *)area = 1;
    refusal_names("%lx", (long)area);
}

static void make_userfaultfd(void)
{
    int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        subject_skip("no userfaultfd");
    struct uffdio_api api = {.api = UFFD_API};
    SYS(ioctl(named(fd), UFFDIO_API, &api));
    if (variant("userfault_memory")) {
        char *area = SYS(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        struct uffdio_register range = {.range = {(unsigned long)area, 8192}, .mode = UFFDIO_REGISTER_MODE_MISSING};
        SYS(ioctl(fd, UFFDIO_REGISTER, &range));
        refusal_names("%lx", (long)area);
    }
}

static void make_perf_event(void)
{
    struct perf_event_attr attributes = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attributes,
                                         .config = PERF_COUNT_SW_TASK_CLOCK};
    int fd = syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0);
    if (fd < 0)
        subject_skip("no perf events");
    named(fd);
}

static int leased;

static void make_lease(void)
{
    leased = named(open(in_dir("leased"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    SYS(fcntl(leased, F_SETLEASE, F_WRLCK));
}

/* The lock belongs to the description, which the mapping keeps. */
static void make_hidden_ofd_lock(void)
{
    int fd = SYS(open(in_dir("locked"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    SYS(ftruncate(fd, 4096));
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
    SYS(fcntl(fd, F_OFD_SETLK, &lock));
    SYS(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0));
    close(fd);
    refusal_names("pid %d ", getpid());
}

static void make_terminal(void)
{
    int master = SYS(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    SYS(grantpt(master));
    SYS(unlockpt(master));
    int slave = SYS(open(ptsname(master), O_RDWR | O_CLOEXEC)); /* becomes the session's terminal */
    CHECK_EQ(SYS(tcgetsid(slave)), getpid());
    refusal_names("pid %d ", getpid());
    if (variant("dev_tty"))
        named(open("/dev/tty", O_RDWR | O_CLOEXEC));
}

/* Not the controlling terminal of anybody. */
static void make_pseudoterminal(void)
{
    int master = SYS(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    SYS(grantpt(master));
    SYS(unlockpt(master));
    int slave = SYS(open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC));
    named(variant("pty_master") ? master : slave);
}

static pid_t kid;
static int failed[2];

/* Suspends this thread until `go`. */
static void *vforks(void *unused)
{
    static volatile pid_t child;
    atomic_fetch_add(&subject_arrived, 1);
    child = vfork();
    if (child == 0) {
        char *path = in_dir("go");
        struct timespec a_moment = {0, 5 * NS_PER_MS};
        while (access(path, F_OK) != 0)
            syscall(SYS_nanosleep, &a_moment, NULL);
        _exit(0);
    }
    int status;
    SYS(waitpid(child, &status, 0));
    thread_hold(); /* the root compares its threads */
    return unused;
}

static void make_core_dump(void)
{
    struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
    SYS(chdir(subject_dir));
    pid_t pid = SYS(fork());
    if (pid == 0) {
        setrlimit(RLIMIT_CORE, &all);
        abort();
    }
    siginfo_t info;
    SYS(waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
    if (info.si_code != CLD_DUMPED)
        subject_skip("no core was dumped");
    refusal_names("pid %d ", pid);
}

/* Its child lives on in its session, with us as its parent. */
static void make_zombie_leader(void)
{
    int ends[2];
    SYS(pipe(ends));
    SYS(prctl(PR_SET_CHILD_SUBREAPER, 1));
    pid_t pid = SYS(fork());
    if (pid == 0) {
        setsid();
        pid_t member = fork();
        if (member == 0) {
            close(ends[0]);
            close(ends[1]);
            while (access(in_dir("go"), F_OK) != 0)
                nap_ms(5);
            _exit(0);
        }
        (void)!write(ends[1], &member, sizeof member);
        _exit(0);
    }
    SYS(read(ends[0], &kid, sizeof kid));
    close(ends[0]);
    close(ends[1]);
    siginfo_t info;
    SYS(waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
    refusal_names("pid %d ", pid);
}

static void make_untold_stop(void)
{
    kid = SYS(fork());
    if (kid == 0) {
        setpgid(0, 0);
        for (;;)
            pause();
    }
    setpgid(kid, kid);
    SYS(kill(kid, SIGTSTP));
    siginfo_t info;
    SYS(waitid(P_PID, kid, &info, WSTOPPED | WNOWAIT));
    refusal_names("pid %d ", kid);
}

static void make_cpu_timer(bool foreign)
{
    clockid_t clock = CLOCK_THREAD_CPUTIME_ID;
    struct sigevent event = {.sigev_notify = SIGEV_NONE};
    int id;
    if (foreign)
        SYS(-clock_getcpuclockid(1, &clock));
    SYS(syscall(SYS_timer_create, clock, &event, &id));
    refusal_names("pid %d ", getpid());
}

static void *holds_thread(void *unused)
{
    thread_hold();
    return unused;
}

static void make_aio(void)
{
    aio_context_t context = 0;
    if (syscall(SYS_io_setup, 8, &context) < 0)
        subject_skip("no AIO");
    refusal_names("%lx", (long)context);
}

static void *unshared(void *flags)
{
    SYS(unshare((int)(long)flags));
    if ((long)flags == CLONE_FS)
        SYS(chdir("/"));
    else if ((long)flags == CLONE_FILES)
        SYS(open("/dev/null", O_RDONLY | O_CLOEXEC));
    refusal_names("pid %d ", getpid());
    thread_hold();
    return NULL;
}

static void *with_own_personality(void *unused)
{
    SYS(syscall(SYS_personality, 0x0020000)); /* UNAME26 */
    refusal_names("thread %d ", (int)thread_id());
    thread_hold();
    CHECK_EQ(syscall(SYS_personality, 0xffffffff), 0x0020000);
    return unused;
}

static void told_of_thread(void *unused)
{
    (void)unused;
    signal(SIGUSR1, SIG_IGN);
    SYS(prctl(PR_SET_PDEATHSIG, SIGUSR1));
    member_hold("told");
}

/* Its child's parent is this thread, whose end the child is told of. */
static void *makes_child(void *unused)
{
    kid = fork_member(told_of_thread, NULL);
    await_member("told");
    refusal_names("pid %d ", (int)kid);
    thread_hold();
    return unused;
}

/* The peer went without having read everything. */
static void make_unix_error(void)
{
    SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, failed));
    SYS(send(failed[0], "unread", 6, 0));
    close(failed[1]);
    named(failed[0]);
}

/* Back from its connection, which the kernel tells once. */
static void make_tcp_error(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int listener = SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(bind(listener, (void *)&address, len));
    SYS(listen(listener, 1));
    SYS(getsockname(listener, (void *)&address, &len));
    failed[0] = SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(connect(failed[0], (void *)&address, len));
    close(SYS(accept(listener, NULL, NULL)));
    close(listener);
    nap_ms(20);
    SYS(connect(failed[0], &(struct sockaddr){.sa_family = AF_UNSPEC}, sizeof(struct sockaddr)));
    named(failed[0]);
}

/* Two that are connected to each other, the first of which somebody had connected to before. */
static void make_elsewhere(void)
{
    int fds[3];
    struct sockaddr_un at[3];
    socklen_t len = 0;
    for (int i = 0; i < 3; i++) {
        fds[i] = SYS(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        SYS(bind(fds[i], (struct sockaddr *)&(sa_family_t){AF_UNIX}, sizeof(sa_family_t)));
        len = sizeof at[i];
        SYS(getsockname(fds[i], (void *)&at[i], &len));
    }
    SYS(connect(fds[0], (void *)&at[1], len));
    SYS(connect(fds[1], (void *)&at[2], len));
    SYS(connect(fds[2], (void *)&at[1], len));
    named(fds[0]);
}

static void traced(void *unused)
{
    char text[4096];
    (void)unused;
    await_that(read_file("/proc/self/status", text, sizeof text) > 0 && !strstr(text, "TracerPid:\t0\n"));
    member_hold("traced");
}

static int shares(void *unused)
{
    (void)unused;
    while (!atomic_load(&subject_released) && access(in_dir("go"), F_OK) != 0)
        nap_ms(5);
    _exit(0);
}

/* clone(2) without a thread: what is shared is more than fork(2) shares. */
static void make_sharing_child(int flags)
{
    static char stack[65536];
    kid = SYS(clone(shares, stack + sizeof stack, flags | SIGCHLD, NULL));
    refusal_names("pid %d ", getpid());
}

/* A process that is no descendant holds the other end, until `go` or 20 s. */
static void give_away(int keep, int give)
{
    pid_t pid = SYS(fork());
    if (pid == 0) {
        setsid();
        if (fork() > 0)
            _exit(0);
        close(keep);
        for (int i = 0; i < 4000 && access(in_dir("go"), F_OK) != 0; i++)
            nap_ms(5);
        _exit(0);
    }
    reap(pid);
    close(give);
}

static void give_to_outsider(int keep, int give)
{
    give_away(keep, give);
    named(keep);
}

static void make_rights_in_flight(void)
{
    int ends[2];
    char control[CMSG_SPACE(sizeof(int))];
    SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
    struct iovec iov = {"x", 1};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    int passed = variant("pidfd_in_flight") ? SYS(syscall(SYS_pidfd_open, getpid(), 0)) : SYS(epoll_create1(EPOLL_CLOEXEC));
    memcpy(CMSG_DATA(header), &passed, sizeof passed);
    SYS(sendmsg(ends[0], &message, 0));
    close(passed);
    named(ends[1]);
}

static void make_pending_client(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, in_shm("socket"));
    int listener = SYS(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(bind(listener, (void *)&address, sizeof address));
    SYS(listen(listener, 5));
    int client = SYS(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    SYS(connect(client, (void *)&address, sizeof address));
    if (variant("pending_outsider")) {
        refusal_names("fd %d ", listener);
        give_away(listener, client);
        return;
    }
    named(client);
    SYS(send(client, "early", 5, 0));
}

/* A network namespace that nobody of the tree is in. */
static void make_foreign_namespace(void)
{
    int ends[2];
    SYS(pipe2(ends, O_CLOEXEC));
    pid_t pid = SYS(fork());
    if (pid == 0) {
        char byte;
        SYS(unshare(CLONE_NEWNET));
        SYS(write(ends[1], "x", 1));
        close(ends[1]);
        nap_ms(200);
        (void)!read(ends[0], &byte, 1);
        _exit(0);
    }
    char byte, path[64];
    SYS(read(ends[0], &byte, 1));
    snprintf(path, sizeof path, "/proc/%d/ns/net", pid);
    named(open(path, O_RDONLY | O_CLOEXEC));
    close(ends[0]);
    close(ends[1]);
    reap(pid);
}

static void holds(void *unused)
{
    (void)unused;
    member_hold("holder");
}

/* From here on the calling thread makes no block devices. */
static void enter_landlock_domain(void)
{
    struct landlock_ruleset_attr rules = {.handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_BLOCK};
    int fd = syscall(SYS_landlock_create_ruleset, &rules, sizeof rules, 0);
    if (fd < 0)
        subject_skip("no Landlock");
    SYS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    SYS(syscall(SYS_landlock_restrict_self, fd, 0));
    SYS(close(fd));
}

static void *restricted(void *unused)
{
    enter_landlock_domain();
    refusal_names("thread %d ", gettid());
    thread_hold();
    CHECK(mknod(in_dir("node"), S_IFBLK | 0600, 0) < 0 && errno == EACCES, "the domain is lost");
    return unused;
}

/* Without any capability, and with a real id of its own. */
static void restricted_user(void *unused)
{
    (void)unused;
    SYS(syscall(SYS_setresgid, 2001, 65535, 65535));
    SYS(syscall(SYS_setresuid, 2000, 65534, 65534));
    enter_landlock_domain();
    member_hold("restricted");
}

static void make_landlock(void)
{
    if (variant("landlock_user")) {
        kid = fork_member(restricted_user, NULL);
        await_member("restricted");
        refusal_names("pid %d ", kid);
        return;
    }
    enter_landlock_domain();
    refusal_names("pid %d ", getpid());
}

static void make_seccomp_listener(void)
{
    struct sock_filter code[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {1, code};
    named(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int ends[2];
    pthread_t thread = 0;
    unsigned char first_byte = 0;
    if (strncmp(subject_variant, "ring_", 5) == 0)
        make_io_uring();
    else if (variant("tcp_established") || variant("tcp_closing"))
        make_tcp_established();
    else if (variant("lonely_watch"))
        kid = make_lonely_watch();
    else if (variant("shared_name"))
        make_shared_name();
    else if (variant("relative_lost") || variant("moved_directory") || variant("taken_name"))
        make_relative();
    else if (variant("netlink_queued") || variant("netlink_connector"))
        make_netlink();
    else if (variant("ebpf_filter"))
        make_ebpf_filter();
    else if (variant("foreign_netlink"))
        make_foreign_netlink();
    else if (variant("userfaultfd") || variant("userfault_memory"))
        make_userfaultfd();
    else if (variant("sysv_part") || variant("sysv_unattached"))
        make_sysv_shm();
    else if (variant("sysv_semaphores") || variant("sysv_undo") || variant("sysv_queue"))
        make_sysv_others();
    else if (variant("sysv_unclear"))
        make_unclear_queue();
    else if (variant("udp_corked") || variant("udp_more"))
        make_unfinished_datagram();
    else if (variant("zerocopy") || variant("stamp_numbers"))
        make_counting_socket();
    else if (variant("append_only"))
        make_append_only();
    else if (variant("flow_label"))
        make_flow_label();
    else if (variant("ipsec_policy"))
        make_ipsec_policy();
    else if (variant("breakpoint")) {
        first_byte = *(volatile unsigned char *)stopped_at;
        set_breakpoint(0xcc);
        refusal_names("pid %d ", getpid());
    } else if (variant("ldt"))
        make_ldt();
    else if (variant("secret_memory"))
        make_secret_memory();
    else if (variant("hugetlb"))
        make_hugetlb();
    else if (variant("pidfd"))
        named(syscall(SYS_pidfd_open, getppid(), 0));
    else if (variant("packet_ring"))
        make_packet_ring();
    else if (variant("perf_event"))
        make_perf_event();
    else if (variant("lease"))
        make_lease();
    else if (variant("hidden_ofd_lock"))
        make_hidden_ofd_lock();
    else if (variant("terminal") || variant("dev_tty"))
        make_terminal();
    else if (variant("pty_master") || variant("pty_slave"))
        make_pseudoterminal();
    else if (variant("vfork")) {
        refusal_names("pid %d ", getpid());
        thread = start_thread(vforks, NULL);
        nap_ms(30);
    } else if (variant("core_dump"))
        make_core_dump();
    else if (variant("zombie_leader"))
        make_zombie_leader();
    else if (variant("untold_stop"))
        make_untold_stop();
    else if (variant("unknown_cpu_timer")) {
        make_cpu_timer(false);
        thread = start_thread(holds_thread, NULL);
    } else if (variant("foreign_cpu_timer"))
        make_cpu_timer(true);
    else if (variant("aio"))
        make_aio();
    else if (variant("traced")) {
        kid = fork_member(traced, NULL);
        SYS(ptrace(PTRACE_SEIZE, kid, 0, 0));
        await_member("traced");
        refusal_names("pid %d ", kid);
    } else if (variant("unlinked_fifo")) {
        SYS(mkfifo(in_dir("fifo"), 0600));
        named(open(in_dir("fifo"), O_RDWR | O_CLOEXEC));
        SYS(unlink(in_dir("fifo")));
    } else if (variant("pipe_outside")) {
        SYS(pipe2(ends, O_CLOEXEC));
        give_to_outsider(ends[0], ends[1]);
    } else if (variant("unix_outside")) {
        SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
        give_to_outsider(ends[0], ends[1]);
    } else if (variant("rights_in_flight") || variant("pidfd_in_flight"))
        make_rights_in_flight();
    else if (variant("pending_client") || variant("pending_outsider"))
        make_pending_client();
    else if (variant("out_of_band")) {
        SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
        if (send(ends[0], "!", 1, MSG_OOB) < 0)
            subject_skip("no out-of-band data in unix sockets");
        named(ends[1]);
    } else if (variant("fanotify_asked")) {
        int fd = fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, O_RDONLY);
        if (fd < 0)
            subject_skip("no fanotify");
        named(fd);
    } else if (variant("fanotify_queued")) {
        int fd = named(fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC, O_RDONLY));
        SYS(fanotify_mark(fd, FAN_MARK_ADD, FAN_MODIFY, AT_FDCWD, subject_dir));
        write_file(in_dir("changed"), "before", 6);
        SYS(fanotify_mark(fd, FAN_MARK_ADD, FAN_MODIFY, AT_FDCWD, in_dir("changed")));
        write_file(in_dir("changed"), "after", 5);
    } else if (variant("mqueue_notify") || variant("mqueue_outside")) {
        make_posix_queue();
    } else if (variant("namespace_fd"))
        make_foreign_namespace();
    else if (variant("fifo_outside")) {
        SYS(mkfifo(in_dir("fifo"), 0600));
        ends[0] = SYS(open(in_dir("fifo"), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
        ends[1] = SYS(open(in_dir("fifo"), O_WRONLY | O_CLOEXEC));
        give_to_outsider(ends[0], ends[1]);
    } else if (variant("proc_of_another"))
        named(open("/proc/1/status", O_RDONLY | O_CLOEXEC));
    else if (variant("proc_shared")) {
        named(open("/proc/self/status", O_RDONLY | O_CLOEXEC));
        kid = fork_member(holds, NULL);
        await_member("holder");
    } else if (variant("dnotify")) {
        SYS(signal(SIGIO, SIG_IGN) == SIG_ERR ? -1 : 0);
        if (fcntl(named(open(subject_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)), F_NOTIFY, DN_RENAME | DN_MULTISHOT) < 0)
            subject_skip("no dnotify");
    } else if (variant("pressure_unknown")) {
        int fd = open("/proc/pressure/memory", O_RDWR | O_CLOEXEC);
        if (fd < 0)
            subject_skip("no pressure stall information");
        SYS(write(named(fd), "some 150000 2000000", 20));
    } else if (variant("lost_name")) {
        SYS(mkdir(in_dir("elsewhere"), 0700));
        named(open(in_dir("lost"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
        SYS(link(in_dir("lost"), in_dir("elsewhere/name")));
        SYS(unlink(in_dir("lost")));
    }
    else if (variant("landlock") || variant("landlock_user"))
        make_landlock();
    else if (variant("landlock_thread"))
        thread = start_thread(restricted, NULL);
    else if (variant("seccomp_listener"))
        make_seccomp_listener();
    else if (variant("shared_files"))
        make_sharing_child(CLONE_FILES);
    else if (variant("shared_memory"))
        make_sharing_child(CLONE_VM);
    else if (variant("thread_cwd"))
        thread = start_thread(unshared, (void *)(long)CLONE_FS);
    else if (variant("thread_files"))
        thread = start_thread(unshared, (void *)(long)CLONE_FILES);
    else if (variant("own_network"))
        thread = start_thread(unshared, (void *)(long)CLONE_NEWNET);
    else if (variant("thread_cgroup"))
        thread = start_thread(unshared, (void *)(long)CLONE_NEWCGROUP);
    else if (variant("thread_personality"))
        thread = start_thread(with_own_personality, NULL);
    else if (variant("thread_death_signal"))
        thread = start_thread(makes_child, NULL);
    else if (variant("unborn_pid_namespace")) {
        SYS(unshare(CLONE_NEWPID));
        refusal_names("pid %d ", getpid());
    } else if (variant("unix_error"))
        make_unix_error();
    else if (variant("tcp_error"))
        make_tcp_error();
    else if (variant("unix_elsewhere"))
        make_elsewhere();
    else
        CHECK(false, "no variant %s", subject_variant);
    if (thread)
        await_threads(1);
    subject_hold();
    if (variant("tcp_closing")) {
        static char bytes[65536];
        ssize_t got;
        while ((got = SYS(recv(tcp[0], bytes, sizeof bytes, 0))) > 0)
            ;
        CHECK_EQ(recv(tcp[1], bytes, 1, 0), 0);
    }
    if (variant("netlink_queued")) {
        char bytes[16];
        CHECK_EQ(recv(netlink_fd, bytes, sizeof bytes, MSG_DONTWAIT), 9);
    }
    if (variant("ring_in_flight"))
        check_ring();
    remove_sysv();
    if (variant("breakpoint")) {
        set_breakpoint(first_byte);
        CHECK_EQ(stopped_at(41), 42);
    }
    if (variant("lease"))
        CHECK_EQ(SYS(fcntl(leased, F_GETLEASE)), F_WRLCK);
    if (variant("unix_error")) {
        char byte;
        CHECK(recv(failed[0], &byte, 1, 0) < 0 && errno == ECONNRESET, "the error has gone: %s", strerror(errno));
        CHECK_EQ(recv(failed[0], &byte, 1, 0), 0);
    }
    if (variant("tcp_error")) {
        int error = 0;
        socklen_t len = sizeof error;
        SYS(getsockopt(failed[0], SOL_SOCKET, SO_ERROR, &error, &len));
        CHECK_EQ(error, ECONNRESET);
    }
    release_threads();
    if (thread)
        PTHREAD(pthread_join(thread, NULL));
    if (variant("untold_stop")) {
        int status;
        CHECK_EQ(SYS(waitpid(kid, &status, WUNTRACED)), kid);
        CHECK_EQ(WSTOPSIG(status), SIGTSTP);
        SYS(kill(kid, SIGKILL));
        SYS(waitpid(kid, &status, 0));
        kid = 0;
    }
    if (kid)
        reap(kid);
    subject_pass();
}
