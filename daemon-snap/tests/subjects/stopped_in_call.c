/* A process that is stopped within a call while a signal of the whole process waits: when it goes on the handler runs, and the
 * call ends with EINTR where the kernel's rules say so. Variants pause, read (handler without SA_RESTART), read_again (with it),
 * blocked (the signal waits behind the mask and ends nothing). */
#include "subject.h"

static int ends[2];
static volatile int handled;

static void on_usr1(int signal)
{
    (void)signal;
    handled++;
}

static void waits(void *unused)
{
    (void)unused;
    struct sigaction action = {.sa_handler = on_usr1, .sa_flags = variant("read_again") ? SA_RESTART : 0};
    SYS(sigaction(SIGUSR1, &action, NULL));
    if (variant("blocked")) {
        SYS(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &(uint64_t){1ull << (SIGUSR1 - 1)}, NULL, 8));
        SYS(syscall(SYS_tgkill, getpid(), thread_id(), SIGUSR1));
        struct sigaction other = {.sa_handler = on_usr1};
        SYS(sigaction(SIGUSR2, &other, NULL));
    }
    publish("waits", "");
    char bytes[8];
    bool reads = variant("read") || variant("read_again");
    ssize_t got = reads ? read(ends[0], bytes, sizeof bytes) : pause();
    if (variant("read_again"))
        CHECK(got == 2 && handled == 1, "read gave %zd, %s, %d signals", got, strerror(errno), handled);
    else
        CHECK(got < 0 && errno == EINTR && handled == 1, "the call gave %zd, %s, %d signals", got, strerror(errno), handled);
    _exit(0);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    SYS(pipe2(ends, O_CLOEXEC));
    pid_t child = fork_member(waits, NULL);
    await_that(access(in_dir("waits"), F_OK) == 0);
    char path[64], text[128];
    snprintf(path, sizeof path, "/proc/%d/syscall", child);
    int call = variant("read") || variant("read_again") ? SYS_read : SYS_pause, status;
    await_that(read_file(path, text, sizeof text) > 0 && text[0] != 'r' && atoi(text) == call);
    SYS(kill(child, SIGSTOP));
    CHECK_EQ(SYS(waitpid(child, &status, WUNTRACED)), child);
    if (!variant("blocked"))
        SYS(kill(child, SIGUSR1));
    subject_hold();

    SYS(kill(child, SIGCONT));
    if (variant("blocked")) {
        nap_ms(50);
        CHECK_EQ(SYS(waitpid(child, &status, WNOHANG)), 0); /* nothing has ended the call */
        SYS(kill(child, SIGUSR2));
    }
    if (variant("read_again")) {
        nap_ms(50);
        SYS(write(ends[1], "hi", 2));
    }
    reap(child);
    subject_pass();
}
