/* What every subject does: make state, say ready, wait for `go`, check itself, write `result`.
 * Works with glibc and musl, shared and static. No descriptor stays open behind the subject's back. */
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))
/* musl's compiler wrapper finds no kernel headers. */
#define FUTEX_WAIT_PRIVATE 128
#define FUTEX_WAKE_PRIVATE 129
#define NS_PER_S 1000000000LL
#define NS_PER_MS 1000000LL

/* argv[1]: on disk; argv[2]: on a tmpfs; both are this subject's alone. A subject that changes its root changes these. */
static char subject_dir[256];
static char subject_shm_dir[256];
/* argv[3], "" when there is none: which variant of the subject. */
static const char *subject_variant = "";
/* Known after `go`: false in a control run, where nothing was dumped. */
static bool subject_was_restored;

/* Ends the whole subject with a verdict; the first verdict counts. Callable from any thread and process of the tree. */
static void UNUSED subject_verdict(const char *text, int code)
{
    char temporary[320], final[320];
    snprintf(temporary, sizeof temporary, "%s/.result-%d", subject_dir, (int)syscall(SYS_gettid));
    snprintf(final, sizeof final, "%s/result", subject_dir);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd >= 0) {
        if (write(fd, text, strlen(text)) < 0)
            code = 1;
        close(fd);
        if (link(temporary, final) < 0 && errno != EEXIST)
            rename(temporary, final);
        unlink(temporary);
    }
    _exit(code);
}

static void __attribute__((format(printf, 3, 4))) UNUSED
subject_fail(const char *where, int line, const char *format, ...)
{
    static char text[4096];
    const char *slash = strrchr(where, '/');
    int used = snprintf(text, sizeof text, "fail: %s:%d: ", slash ? slash + 1 : where, line);
    va_list list;
    va_start(list, format);
    vsnprintf(text + used, sizeof text - used, format, list);
    va_end(list);
    subject_verdict(text, 1);
}

/* CHECK(condition, "format", …): the condition holds, or the subject fails with this text. */
#define CHECK(condition, ...)                                                                                        \
    do {                                                                                                             \
        if (!(condition))                                                                                            \
            subject_fail(__FILE__, __LINE__, __VA_ARGS__);                                                           \
    } while (0)

#define CHECK_EQ(actual, wanted)                                                                                     \
    do {                                                                                                             \
        long long actual_ = (long long)(actual), wanted_ = (long long)(wanted);                                      \
        if (actual_ != wanted_)                                                                                      \
            subject_fail(__FILE__, __LINE__, "%s is %lld (0x%llx), wanted %lld (0x%llx)", #actual, actual_,          \
                         actual_, wanted_, wanted_);                                                                 \
    } while (0)

/* SYS(call): its value; -1 fails the subject with errno. */
#define SYS(call)                                                                                                    \
    ({                                                                                                               \
        __typeof__(call) value_ = (call);                                                                            \
        if ((long)value_ == -1)                                                                                      \
            subject_fail(__FILE__, __LINE__, "%s: %s", #call, strerror(errno));                                      \
        value_;                                                                                                      \
    })

/* PTHREAD(call): 0, or the subject fails. */
#define PTHREAD(call)                                                                                                \
    do {                                                                                                             \
        int error_ = (call);                                                                                         \
        if (error_)                                                                                                  \
            subject_fail(__FILE__, __LINE__, "%s: %s", #call, strerror(error_));                                     \
    } while (0)

static void UNUSED subject_pass(void)
{
    subject_verdict("pass", 0);
}

/* The kernel lacks what this subject is about. */
static void UNUSED subject_skip(const char *reason)
{
    char text[256];
    snprintf(text, sizeof text, "skip: %s", reason);
    subject_verdict(text, 0);
}

/* The processor does. */
static void UNUSED subject_skip_for_processor(const char *reason)
{
    char text[256];
    snprintf(text, sizeof text, "skip for the processor: %s", reason);
    subject_verdict(text, 0);
}

/* Root does not have a capability here. */
static void UNUSED subject_skip_for_capability(const char *reason)
{
    char text[256];
    snprintf(text, sizeof text, "skip for a capability: %s", reason);
    subject_verdict(text, 0);
}

static pid_t UNUSED thread_id(void)
{
    return (pid_t)syscall(SYS_gettid);
}

static int64_t UNUSED now_ns(clockid_t clock)
{
    struct timespec now;
    SYS(clock_gettime(clock, &now));
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

/* Sleeps about this long; an interruption only shortens it. */
static void UNUSED nap_ms(int ms)
{
    struct timespec span = {ms / 1000, ms % 1000 * NS_PER_MS};
    syscall(SYS_nanosleep, &span, NULL);
}

/* Path inside the subject's directory; one of eight buffers in turn. */
static char *UNUSED in_dir_of(const char *dir, const char *name)
{
    static char buffers[8][320];
    static unsigned turn;
    char *path = buffers[turn++ % 8];
    snprintf(path, sizeof buffers[0], "%s/%s", dir, name);
    return path;
}
#define in_dir(name) in_dir_of(subject_dir, name)
#define in_shm(name) in_dir_of(subject_shm_dir, name)

static void UNUSED write_file(const char *path, const void *bytes, size_t len)
{
    int fd = SYS(open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
    CHECK(write(fd, bytes, len) == (ssize_t)len, "short write to %s", path);
    close(fd);
}

/* Reads at most size-1 bytes and ends them with NUL; -errno when the file cannot be read. */
static long UNUSED read_file(const char *path, char *bytes, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        bytes[0] = 0;
        return -errno;
    }
    size_t used = 0;
    ssize_t got;
    while (used < size - 1 && (got = read(fd, bytes + used, size - 1 - used)) > 0)
        used += got;
    bytes[used] = 0;
    close(fd);
    return used;
}

/* A file that appears complete or not at all. */
static void UNUSED publish(const char *name, const char *text)
{
    char temporary[64];
    snprintf(temporary, sizeof temporary, ".%s-%d", name, (int)getpid());
    write_file(in_dir(temporary), text, strlen(text));
    SYS(rename(in_dir(temporary), in_dir(name)));
}

/* A line that must appear in the refusal; several calls add up. %s of the format as in printf. */
static void __attribute__((format(printf, 1, 2))) UNUSED refusal_names(const char *format, ...)
{
    char line[128];
    va_list list;
    va_start(list, format);
    int len = vsnprintf(line, sizeof line - 1, format, list);
    va_end(list);
    line[len++] = '\n';
    int fd = SYS(open(in_dir("names"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
    SYS(write(fd, line, len));
    close(fd);
}

static void UNUSED subject_begin(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s DIR TMPFS-DIR [VARIANT]\n", argv[0]);
        exit(2);
    }
    snprintf(subject_dir, sizeof subject_dir, "%s", argv[1]);
    snprintf(subject_shm_dir, sizeof subject_shm_dir, "%s", argv[2]);
    if (argc > 3)
        subject_variant = argv[3];
    syscall(SYS_close_range, 3, ~0u, 0); /* nothing from whoever started us */
    SYS(setsid());
}

static bool UNUSED variant(const char *name)
{
    return strcmp(subject_variant, name) == 0;
}

/* Looks for `go`. Called once before anybody is told of being ready, so that memory does not depend on when the dump comes: the path is
 * in its place, the function has been looked up, and errno is what it will be. */
static bool UNUSED may_go(void)
{
    static char path[320];
    if (!*path)
        snprintf(path, sizeof path, "%s/go", subject_dir);
    return access(path, F_OK) == 0;
}

/* Waits for `go`. */
static void UNUSED await_go(void)
{
    char how[32];
    while (!may_go())
        nap_ms(5);
    read_file(in_dir("go"), how, sizeof how);
    subject_was_restored = strncmp(how, "restored", 8) == 0;
}

/* Waits until the thread of this process sleeps in system call `number`, or in its continuation after a stop. */
static void UNUSED await_blocked(pid_t tid, long number)
{
    char path[64], text[128];
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", tid);
    for (int i = 0; i < 4000; i++) {
        if (read_file(path, text, sizeof text) > 0 && text[0] != 'r' && (atol(text) == number || atol(text) == SYS_restart_syscall)) {
            nap_ms(2);
            return;
        }
        nap_ms(1);
    }
    subject_fail(__FILE__, __LINE__, "thread %d never blocked in system call %ld: %s", tid, number, text);
}

/* Waits until the condition holds; 5 s without it fail the subject. */
#define await_that(condition)                                                                                        \
    do {                                                                                                             \
        int tries_ = 0;                                                                                              \
        while (!(condition)) {                                                                                       \
            CHECK(tries_++ < 5000, "5 s passed and not: %s", #condition);                                            \
            nap_ms(1);                                                                                               \
        }                                                                                                            \
    } while (0)

#include "common.h"

static void UNUSED publish_ready(const char *name)
{
    may_go();
    publish(name, "ready");
}

/* The root: remembers what all processes have in common, says ready, waits, compares. */
static void UNUSED subject_hold(void)
{
    common_take(true);
    publish_ready("ready");
    await_go();
    common_check(true);
}

/* Another process of the tree: the same; `name` is what the root waits for with await_member. */
static void UNUSED member_hold(const char *name)
{
    char file[64];
    common_take(false);
    snprintf(file, sizeof file, "member-%s", name);
    publish_ready(file);
    await_go();
    common_check(false);
}

static void UNUSED await_member(const char *name)
{
    char file[64];
    snprintf(file, sizeof file, "member-%s", name);
    while (access(in_dir(file), F_OK) != 0)
        nap_ms(1);
}

/* Forks; the child runs `body` and exits 0. */
static pid_t UNUSED fork_member(void (*body)(void *), void *argument)
{
    pid_t pid = SYS(fork());
    if (pid == 0) {
        body(argument);
        _exit(0);
    }
    return pid;
}

/* The child ends by itself with code 0. */
static void UNUSED reap(pid_t pid)
{
    int status;
    pid_t got;
    do
        got = waitpid(pid, &status, 0);
    while (got < 0 && errno == EINTR);
    CHECK(got == pid, "waitpid(%d) gave %d: %s", pid, got, strerror(errno));
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child %d ended with status 0x%x", pid, status);
}

static pthread_t UNUSED start_thread(void *(*body)(void *), void *argument)
{
    pthread_t thread;
    PTHREAD(pthread_create(&thread, NULL, body, argument));
    return thread;
}

/* Where threads wait until the main thread has been through subject_hold: a futex, all woken at once. */
static atomic_int subject_arrived, subject_released;

static void UNUSED thread_hold(void)
{
    atomic_fetch_add(&subject_arrived, 1);
    while (!atomic_load(&subject_released))
        syscall(SYS_futex, &subject_released, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
}

static void UNUSED await_threads(int count)
{
    await_that(atomic_load(&subject_arrived) == count);
}

static void UNUSED release_threads(void)
{
    atomic_store(&subject_released, 1);
    syscall(SYS_futex, &subject_released, FUTEX_WAKE_PRIVATE, 1 << 30, NULL, NULL, 0);
}

/* A sequence that depends on seed and index, to fill memory with. */
static uint64_t UNUSED pattern(uint64_t seed, uint64_t index)
{
    uint64_t x = seed * 0x9e3779b97f4a7c15u + index;
    x ^= x >> 31;
    x *= 0xbf58476d1ce4e5b9u;
    return x ^ x >> 27;
}

static void UNUSED fill(void *at, size_t len, uint64_t seed)
{
    uint64_t *word = at;
    for (size_t i = 0; i < len / 8; i++)
        word[i] = pattern(seed, i);
}

static void UNUSED check_filled(const void *at, size_t len, uint64_t seed, const char *what)
{
    const uint64_t *word = at;
    for (size_t i = 0; i < len / 8; i++)
        CHECK(word[i] == pattern(seed, i), "%s: word %zu at %p is 0x%lx, wanted 0x%lx", what, i, (void *)(word + i),
              word[i], pattern(seed, i));
}

static void UNUSED check_zero(const void *at, size_t len, const char *what)
{
    const unsigned char *byte = at;
    for (size_t i = 0; i < len; i++)
        CHECK(byte[i] == 0, "%s: byte %zu is 0x%x, wanted 0", what, i, byte[i]);
}
