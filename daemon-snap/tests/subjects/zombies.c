/* Children that have ended and that nobody has waited for: number, status, user, group, order, and a SIGCHLD for each that is due. */
#include "subject.h"

struct ending {
    int code, signal, uid;
    int group; /* 0: the parent's, 1: its own, 2: that of the first, 3: a session of its own */
    int exit_signal;
};

static const struct ending endings[] = {
    {.code = 0, .group = 1}, {.code = 77, .group = 2}, {.signal = SIGTERM}, {.signal = SIGKILL, .uid = 4711},
    {.signal = SIGSEGV},     {.code = 255, .group = 3}, {.signal = 64},      {.code = 5, .exit_signal = SIGUSR2},
    {.code = 6, .exit_signal = -1},
};
#define COUNT (int)(sizeof endings / sizeof endings[0])

static pid_t zombies[COUNT];
static volatile int signals, others;

static void on_child(int signal, siginfo_t *info, void *context)
{
    (void)info, (void)context;
    if (signal == SIGCHLD)
        signals++;
    else
        others++;
}

static void end(const struct ending *how, pid_t first)
{
    struct rlimit none = {0, 0};
    SYS(setrlimit(RLIMIT_CORE, &none));
    if (how->group == 1)
        SYS(setpgid(0, 0));
    else if (how->group == 2)
        SYS(setpgid(0, first));
    else if (how->group == 3)
        SYS(setsid());
    SYS(prctl(PR_SET_NAME, "has ended"));
    if (how->uid)
        SYS(setresuid(how->uid, how->uid, how->uid));
    if (!how->signal)
        _exit(how->code);
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_UNBLOCK, &all, NULL);
    signal(how->signal, SIG_DFL);
    kill(getpid(), how->signal);
    for (;;)
        pause();
}

static void make_zombies(void)
{
    for (int i = 0; i < COUNT; i++) {
        int exit_signal = endings[i].exit_signal ? endings[i].exit_signal : SIGCHLD;
        zombies[i] = SYS(syscall(SYS_clone, exit_signal < 0 ? 0 : exit_signal, 0, 0, 0, 0));
        if (zombies[i] == 0)
            end(&endings[i], zombies[0]);
        siginfo_t info;
        SYS(waitid(P_PID, zombies[i], &info, WEXITED | WNOWAIT | __WALL));
    }
}

static void check_zombies(void)
{
    char path[64], text[512];
    for (int i = 0; i < COUNT; i++) {
        const struct ending *how = &endings[i];
        snprintf(path, sizeof path, "/proc/%d/stat", zombies[i]);
        CHECK(read_file(path, text, sizeof text) > 0, "zombie %d is gone", i);
        char state;
        int parent, group, session;
        CHECK(sscanf(strrchr(text, ')') + 2, "%c %d %d %d", &state, &parent, &group, &session) == 4, "stat is %s", text);
        CHECK(strstr(text, "(has ended)"), "its name is lost: %s", text);
        CHECK_EQ(state, 'Z');
        CHECK_EQ(parent, getpid());
        CHECK_EQ(group, how->group == 0 ? getpgrp() : how->group == 2 ? zombies[0] : zombies[i]);
        CHECK_EQ(session, how->group == 3 ? zombies[i] : getsid(0));
        CHECK_EQ(kill(zombies[i], 0), 0);
    }
    /* the oldest first */
    for (int i = 0; i < COUNT; i++) {
        const struct ending *how = &endings[i];
        siginfo_t info = {0};
        SYS(waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT | __WALL));
        CHECK_EQ(info.si_pid, zombies[i]);
        CHECK_EQ(info.si_uid, how->uid);
        CHECK_EQ(info.si_code, how->signal ? CLD_KILLED : CLD_EXITED);
        CHECK_EQ(info.si_status, how->signal ? how->signal : how->code);
        bool other = how->exit_signal != 0;
        int status;
        CHECK_EQ(waitpid(zombies[i], &status, WNOHANG), other ? -1 : zombies[i]);
        if (other)
            CHECK_EQ(SYS(waitpid(zombies[i], &status, WNOHANG | __WCLONE)), zombies[i]);
        CHECK_EQ(status, how->signal ? how->signal : how->code << 8);
    }
    CHECK(waitpid(-1, NULL, WNOHANG | __WALL) < 0 && errno == ECHILD, "there is one more child");
}

static void has_zombies(void *unused)
{
    (void)unused;
    make_zombies();
    member_hold("has-zombies");
    check_zombies();
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sigaction action = {.sa_sigaction = on_child, .sa_flags = SA_SIGINFO | SA_RESTART};
    SYS(sigaction(SIGCHLD, &action, NULL));
    SYS(sigaction(SIGUSR2, &action, NULL));
    if (variant("pending")) {
        /* the signal of the first is not taken yet */
        sigset_t mask;
        sigemptyset(&mask);
        sigaddset(&mask, SIGCHLD);
        SYS(sigprocmask(SIG_BLOCK, &mask, NULL));
        make_zombies();
        subject_hold();
        siginfo_t info;
        struct timespec none = {0, 0};
        CHECK_EQ(sigtimedwait(&mask, &info, &none), SIGCHLD);
        CHECK_EQ(info.si_pid, zombies[0]);
        CHECK_EQ(info.si_code, CLD_EXITED);
        CHECK_EQ(info.si_status, 0);
        CHECK(sigtimedwait(&mask, &info, &none) < 0 && errno == EAGAIN, "there is a second SIGCHLD");
        check_zombies();
    } else if (variant("ignored")) {
        /* who ignores SIGCHLD afterwards keeps the zombies that it has */
        make_zombies();
        signal(SIGCHLD, SIG_IGN);
        subject_hold();
        check_zombies();
    } else if (variant("of_child")) {
        pid_t child = fork_member(has_zombies, NULL);
        await_member("has-zombies");
        subject_hold();
        reap(child);
    } else {
        make_zombies();
        CHECK_EQ(signals, COUNT - 2);
        CHECK_EQ(others, 1);
        subject_hold();
        nap_ms(20);
        CHECK_EQ(signals, COUNT - 2);
        CHECK_EQ(others, 1);
        check_zombies();
    }
    subject_pass();
}
