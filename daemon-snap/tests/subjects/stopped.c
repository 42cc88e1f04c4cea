/* Processes that a signal has stopped: they stay stopped, SIGCONT lets them go on where they were, signals wait until then, and the
 * parent is told of the stop once. */
#include "subject.h"

static volatile int children, last_code, terms;
static int *shared; /* steps of the children */

static void on_child(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    last_code = info->si_code;
    children++;
}

static void on_term(int signal)
{
    (void)signal;
    terms++;
}

static char state_of(pid_t pid)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    CHECK(read_file(path, text, sizeof text) > 0, "%d is gone", pid);
    return strrchr(text, ')')[2];
}

static void *counts(void *unused)
{
    thread_hold();
    return unused;
}

/* Counts; with threads that count too, and SIGTERM handled. */
static void works(void *name)
{
    signal(SIGTERM, on_term);
    SYS(prctl(PR_SET_PDEATHSIG, SIGKILL));
    SYS(setpgid(0, 0)); /* SIGTSTP stops nobody in a group without connection to the rest of its session */
    pthread_t thread[3];
    for (int i = 0; i < 3; i++)
        thread[i] = start_thread(counts, NULL);
    await_threads(3);
    common_take(false);
    char file[64];
    snprintf(file, sizeof file, "member-%s", (char *)name);
    publish(file, "ready");
    /* no system call, so that a single instruction too many would show */
    volatile int *steps = shared;
    while (!terms)
        ++*steps;
    common_check(false);
    release_threads();
    for (int i = 0; i < 3; i++)
        PTHREAD(pthread_join(thread[i], NULL));
    _exit(terms == 1 ? 0 : 1);
}

static bool is_pending(int signal)
{
    sigset_t pending;
    SYS(sigpending(&pending));
    return sigismember(&pending, signal);
}

static void stop(pid_t pid, int signal)
{
    SYS(kill(pid, signal));
    await_that(state_of(pid) == 'T');
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sigaction action = {.sa_sigaction = on_child, .sa_flags = SA_SIGINFO | SA_RESTART};
    SYS(sigaction(SIGCHLD, &action, NULL));
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGCHLD);
    bool waited = variant("waited") || variant("tstp"), pending = variant("pending");
    if (pending)
        SYS(sigprocmask(SIG_BLOCK, &mask, NULL));
    pid_t pid = fork_member(works, "works");
    await_member("works");
    stop(pid, variant("tstp") ? SIGTSTP : SIGSTOP);
    /* the parent is told when the last of the threads has stopped, and /proc shows the first of them */
    await_that(pending ? is_pending(SIGCHLD) : children == 1);
    int status;
    if (waited) {
        CHECK_EQ(SYS(waitpid(pid, &status, WUNTRACED | WNOHANG)), pid);
        CHECK_EQ(WSTOPSIG(status), variant("tstp") ? SIGTSTP : SIGSTOP);
    }
    if (variant("looked")) {
        siginfo_t seen = {0};
        SYS(waitid(P_PID, pid, &seen, WSTOPPED | WNOHANG | WNOWAIT));
        CHECK_EQ(seen.si_status, SIGSTOP);
    }
    int steps = *shared;
    SYS(kill(pid, SIGTERM)); /* waits until SIGCONT comes */
    subject_hold();

    await_that(state_of(pid) == 'T');
    nap_ms(20);
    CHECK_EQ(state_of(pid), 'T');
    CHECK_EQ(*shared, steps);
    if (pending) {
        siginfo_t info;
        struct timespec none = {0, 0};
        CHECK_EQ(sigtimedwait(&mask, &info, &none), SIGCHLD);
        CHECK_EQ(info.si_code, CLD_STOPPED);
        CHECK_EQ(info.si_pid, pid);
        CHECK(sigtimedwait(&mask, &info, &none) < 0 && errno == EAGAIN, "there is a second SIGCHLD");
        SYS(sigprocmask(SIG_UNBLOCK, &mask, NULL));
    } else {
        CHECK_EQ(children, 1);
    }
    int got = SYS(waitpid(pid, &status, WUNTRACED | WNOHANG));
    CHECK_EQ(got, waited ? 0 : pid);
    if (!waited)
        CHECK_EQ(status, SIGSTOP << 8 | 0x7f);
    CHECK_EQ(SYS(waitpid(pid, &status, WUNTRACED | WNOHANG)), 0);
    int before = children;
    SYS(kill(pid, SIGCONT));
    await_that(children > before);
    SYS(waitpid(pid, &status, WCONTINUED));
    if (WIFCONTINUED(status))
        SYS(waitpid(pid, &status, 0));
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with 0x%x", status);
    subject_pass();
}
