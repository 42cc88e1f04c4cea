/* Limits that are reached, or were lowered below what there is. They count as before, and what there is comes back.
 * Variants signals, signals_below, memory, memory_below, locked, locked_below, processes, processes_below, queues,
 * queues_below, priorities, file_size. */
#include "subject.h"
#include <mqueue.h>
#include <sched.h>

/* Tests run beside each other. */
#define UID ((uid_t)getpid())
#define SIGNALS 5
#define TIMERS 3

static void limit(int resource, rlim_t value)
{
    SYS(setrlimit(resource, &(struct rlimit){value, value}));
}

/* Nobody else counts towards the limits of this user. */
static void become_user(void)
{
    uid_t uid = UID;
    SYS(chmod(subject_dir, 0777));
    SYS(syscall(SYS_setresgid, uid, uid, uid));
    SYS(syscall(SYS_setresuid, uid, uid, uid));
    SYS(prctl(PR_SET_DUMPABLE, 1));
}

static int queued(int value)
{
    return sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = value});
}

static void signals(bool below)
{
    sigset_t set;
    timer_t timers[TIMERS], more;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    SYS(sigprocmask(SIG_BLOCK, &set, NULL));
    become_user();
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1};
    for (int i = 0; i < TIMERS; i++)
        SYS(timer_create(CLOCK_MONOTONIC, &event, &timers[i]));
    for (int i = 0; i < SIGNALS; i++)
        SYS(queued(i));
    limit(RLIMIT_SIGPENDING, below ? 1 : SIGNALS + TIMERS);
    subject_hold();
    CHECK(queued(9) < 0 && errno == EAGAIN, "one more signal");
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &more) < 0 && errno == EAGAIN, "one more timer");
    siginfo_t info;
    for (int i = 0; i < SIGNALS; i++) {
        CHECK_EQ(sigtimedwait(&set, &info, &(struct timespec){0}), SIGRTMIN);
        CHECK_EQ(info.si_value.sival_int, i);
    }
    for (int i = 0; i < TIMERS; i++)
        SYS(timer_delete(timers[i]));
    await_that(queued(9) == 0); /* the kernel frees timers later */
}

static size_t mapped_bytes(const char *key)
{
    static char text[8192];
    read_file("/proc/self/status", text, sizeof text);
    const char *at = strstr(text, key);
    CHECK(at != NULL, "no %s", key);
    return strtoul(at + strlen(key), NULL, 10) << 10;
}

static void __attribute__((noinline)) grow_stack(void)
{
    volatile char deep[2 << 20];
    for (size_t i = 0; i < sizeof deep; i += 4096)
        deep[sizeof deep - 1 - i] = 1;
}

/* Of what is mapped no more, and of a stack that is higher than it may grow. */
static void memory(bool below)
{
    char *own = SYS(mmap(NULL, 8 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    memset(own, 7, 4096);
    grow_stack();
    volatile char deep[1 << 20];
    for (size_t i = 0; i < sizeof deep; i += 4096)
        deep[i] = i >> 12;
    limit(RLIMIT_STACK, 64 << 10);
    rlim_t data = below ? 4096 : mapped_bytes("VmData:"), all = below ? 4096 : mapped_bytes("VmSize:");
    SYS(setrlimit(RLIMIT_DATA, &(struct rlimit){data, RLIM_INFINITY}));
    SYS(setrlimit(RLIMIT_AS, &(struct rlimit){all, RLIM_INFINITY}));
    subject_hold();
    CHECK_EQ(own[4095], 7);
    for (size_t i = 0; i < sizeof deep; i += 4096)
        CHECK_EQ(deep[i], (char)(i >> 12));
    void *more = mmap(NULL, 8 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(more == MAP_FAILED && errno == ENOMEM, "more memory");
    SYS(munmap(own, 8 << 20));
}

static void locked(bool below)
{
    char *own = SYS(mmap(NULL, 16 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    SYS(mlock(own, 8 << 12));
    become_user();
    limit(RLIMIT_MEMLOCK, below ? 0 : 8 << 12);
    subject_hold();
    CHECK(mlock(own + (8 << 12), 4096) < 0 && errno == (below ? EPERM : ENOMEM), "more locked memory");
    CHECK_EQ(mapped_bytes("VmLck:"), 8 << 12);
}

static void *other(void *unused)
{
    thread_hold();
    return unused;
}

static void child(void *most)
{
    limit(RLIMIT_NPROC, *(rlim_t *)most);
    member_hold("child");
    /* Only who became the user while the limit was exceeded may execute nothing. */
    execl("/bin/sh", "sh", "-c", "exit 42", NULL);
    _exit(errno == EAGAIN ? 11 : 12);
}

static void processes(bool below)
{
    become_user();
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        threads[i] = start_thread(other, NULL);
    await_threads(2);
    rlim_t most = below ? 1 : 4;
    pid_t pid = fork_member(child, &most);
    await_member("child");
    limit(RLIMIT_NPROC, most);
    subject_hold();
    int status;
    CHECK(fork() < 0 && errno == EAGAIN, "one more process");
    release_threads();
    SYS(waitpid(pid, &status, 0));
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42, "the child ended with %#x", status);
    for (int i = 0; i < 2; i++)
        PTHREAD(pthread_join(threads[i], NULL));
}

static void queues(bool below)
{
    become_user();
    struct mq_attr attr = {.mq_maxmsg = 4, .mq_msgsize = 1024};
    char name[40], bytes[1024];
    snprintf(name, sizeof name, "/subject-limit-%d", getpid());
    mqd_t queue = SYS(mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NONBLOCK, 0600, &attr));
    SYS(mq_send(queue, "letter", 6, 3));
    limit(RLIMIT_MSGQUEUE, below ? 0 : 4700);
    subject_hold();
    CHECK(mq_open("/subject-limit-more", O_RDWR | O_CREAT, 0600, &attr) < 0 && errno == EMFILE, "one more queue");
    CHECK_EQ(mq_receive(queue, bytes, sizeof bytes, NULL), 6);
    SYS(mq_unlink(name));
}

static void priorities(void)
{
    SYS(setpriority(PRIO_PROCESS, 0, -7));
    bool real_time = sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &(struct sched_param){3}) == 0;
    become_user();
    limit(RLIMIT_NICE, 0);
    limit(RLIMIT_RTPRIO, 0);
    subject_hold();
    CHECK_EQ(sched_getscheduler(0), real_time ? SCHED_RR | SCHED_RESET_ON_FORK : SCHED_OTHER);
    CHECK_EQ(getpriority(PRIO_PROCESS, 0), -7);
    CHECK(setpriority(PRIO_PROCESS, 0, -8) < 0 && errno == EACCES, "a better priority");
}

static void file_size(void)
{
    static char bytes[1 << 16];
    memset(bytes, 5, sizeof bytes);
    int fd = SYS(open(in_dir("file"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    SYS(unlink(in_dir("file")));
    CHECK_EQ(write(fd, bytes, sizeof bytes), sizeof bytes);
    SYS(signal(SIGXFSZ, SIG_IGN) == SIG_ERR ? -1 : 0);
    limit(RLIMIT_FSIZE, 4096);
    subject_hold();
    CHECK(write(fd, bytes, 1) < 0 && errno == EFBIG, "a longer file");
    CHECK(pread(fd, bytes, sizeof bytes, 0) == sizeof bytes && bytes[65535] == 5, "another content");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (variant("signals") || variant("signals_below"))
        signals(variant("signals_below"));
    else if (variant("memory") || variant("memory_below"))
        memory(variant("memory_below"));
    else if (variant("locked") || variant("locked_below"))
        locked(variant("locked_below"));
    else if (variant("processes") || variant("processes_below"))
        processes(variant("processes_below"));
    else if (variant("queues") || variant("queues_below"))
        queues(variant("queues_below"));
    else if (variant("priorities"))
        priorities();
    else
        file_size();
    subject_pass();
}
