/* The program of the committed images `tiny-*.img`: no C library, no file that a machine might lack, no use of the vDSO. It makes
 * the state of one variant, waits for SIGUSR1, and ends with 42 when all is as it was, else with the number of the line.
 *
 *     cc -O1 -static -nostdlib -no-pie -fno-stack-protector -fno-asynchronous-unwind-tables -o tiny tiny.c
 */
#include <fcntl.h>
#include <linux/memfd.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

static long call6(long number, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return result;
}

#define call(number, a, b, c, d) call6(number, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)

static void end(int status)
{
    for (;;)
        call(SYS_exit_group, status, 0, 0, 0);
}

#define CHECK(holds) do { if (!(holds)) end((__LINE__ & 127) | 128); } while (0)

struct action {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    unsigned long mask;
};

static volatile int alarms;

__attribute__((naked)) static void restorer(void)
{
    __asm__("mov $15, %eax\n\tsyscall");
}

static void on_signal(int signal)
{
    (void)signal;
    alarms++;
}

static void handle(int signal)
{
    struct action action = {on_signal, 0x04000000 /* SA_RESTORER */, restorer, 0};
    CHECK(call(SYS_rt_sigaction, signal, &action, 0, 8) == 0);
}

/* Blocked from the start, so that it is not lost whenever it comes. */
static unsigned long go = 1UL << (SIGUSR1 - 1);

static void await_signal(void)
{
    while (call(SYS_rt_sigtimedwait, &go, 0, 0, 8) != SIGUSR1)
        ;
}

static int is(const char *found, const char *wanted, int len)
{
    for (int i = 0; i < len; i++)
        if (found[i] != wanted[i])
            return 0;
    return 1;
}

static char bytes[16];

static void descriptors(void)
{
    int ends[2];
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 77};
    CHECK(call(SYS_pipe2, ends, O_CLOEXEC, 0, 0) == 0);
    CHECK(call(SYS_write, ends[1], "unread", 6, 0) == 6);
    long counter = call(SYS_eventfd2, 7, 0, 0, 0);
    long set = call(SYS_epoll_create1, 0, 0, 0, 0);
    CHECK(counter >= 0 && set >= 0 && call(SYS_epoll_ctl, set, EPOLL_CTL_ADD, counter, &event) == 0);
    await_signal();
    CHECK(call(SYS_read, ends[0], bytes, 16, 0) == 6 && is(bytes, "unread", 6));
    struct epoll_event ready = {0};
    CHECK(call(SYS_epoll_wait, set, &ready, 1, 0) == 1 && ready.data.u64 == 77);
    unsigned long count = 0;
    CHECK(call(SYS_read, counter, &count, 8, 0) == 8 && count == 7);
}

static void memory(void)
{
    long fd = call(SYS_memfd_create, "shared", MFD_CLOEXEC, 0, 0);
    CHECK(fd >= 0 && call(SYS_ftruncate, fd, 8192, 0, 0) == 0);
    char *shared = (char *)call6(SYS_mmap, 0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *private = (char *)call6(SYS_mmap, 0, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK((long)shared > 0 && (long)private > 0);
    CHECK(call(SYS_mprotect, private + 4096, 4096, PROT_READ, 0) == 0);
    for (int i = 0; i < 16; i++) {
        shared[4096 + i] = "shared memory 16"[i];
        private[8192 + i] = "private memory 6"[i];
    }
    await_signal();
    CHECK(is(shared + 4096, "shared memory 16", 16) && is(private + 8192, "private memory 6", 16));
    CHECK(private[4096] == 0 && call(SYS_pread64, fd, bytes, 16, 4096) == 16 && is(bytes, "shared memory 16", 16));
    shared[4096] = 'S';
    CHECK(call(SYS_pread64, fd, bytes, 1, 4096) == 1 && bytes[0] == 'S');
}

static void sockets(void)
{
    int ends[2];
    CHECK(call(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0);
    CHECK(call(SYS_write, ends[0], "first", 5, 0) == 5 && call(SYS_write, ends[0], "second", 6, 0) == 6);
    await_signal();
    CHECK(call(SYS_read, ends[1], bytes, 16, 0) == 5 && is(bytes, "first", 5));
    CHECK(call(SYS_read, ends[1], bytes, 16, 0) == 6 && is(bytes, "second", 6));
    CHECK(call(SYS_write, ends[1], "back", 4, 0) == 4 && call(SYS_read, ends[0], bytes, 16, 0) == 4);
}

/* A child, a pending signal that is blocked, and a timer. */
static void processes(void)
{
    unsigned long mask = 1UL << (SIGUSR2 - 1);
    CHECK(call(SYS_rt_sigprocmask, SIG_BLOCK, &mask, 0, 8) == 0);
    handle(SIGUSR2);
    int ends[2];
    CHECK(call(SYS_pipe2, ends, 0, 0, 0) == 0);
    long child = call(SYS_fork, 0, 0, 0, 0);
    CHECK(child >= 0);
    if (child == 0) {
        call(SYS_close, ends[1], 0, 0, 0);
        end(call(SYS_read, ends[0], bytes, 16, 0) == 2 && is(bytes, "go", 2) ? 7 : 8);
    }
    CHECK(call(SYS_kill, call(SYS_getpid, 0, 0, 0, 0), SIGUSR2, 0, 0) == 0);
    await_signal();
    CHECK(alarms == 0);
    CHECK(call(SYS_rt_sigprocmask, SIG_UNBLOCK, &mask, 0, 8) == 0 && alarms == 1);
    int status = 0;
    CHECK(call(SYS_write, ends[1], "go", 2, 0) == 2);
    long gone;
    while ((gone = call(SYS_wait4, -1, &status, 0, 0)) == -4)
        ;
    CHECK(gone == child && status == 7 << 8);
}

__attribute__((used)) static void run(long *stack)
{
    char **arguments = (char **)(stack + 1);
    CHECK(stack[0] == 2 && call(SYS_rt_sigprocmask, SIG_BLOCK, &go, 0, 8) == 0);
    switch (arguments[1][0]) {
    case 'd': descriptors(); break;
    case 'm': memory(); break;
    case 's': sockets(); break;
    case 'p': processes(); break;
    default: end(2);
    }
    end(42);
}

__attribute__((naked)) void _start(void)
{
    __asm__("mov %rsp, %rdi\n\tand $-16, %rsp\n\tcall run");
}
