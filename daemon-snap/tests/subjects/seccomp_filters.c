/* Variants one, stack (30 filters, no_new_privs), privileged (30 filters without no_new_privs), threads (two threads with
 * filters of their own): the filters work afterwards, all of them, in their order. */
#include "subject.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>

/* From this number on no system call exists; each filter gives one of them an errno of its own. */
#define NUMBER 1000

static void install(int index, unsigned flags)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NUMBER + index, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (100 + index)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NUMBER + 500, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (200 + index)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof code[0], code};
    SYS(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program));
}

static int answer(int number)
{
    errno = 0;
    long got = syscall(number);
    return got < 0 ? errno : 0;
}

static void check_stack(int from, int to)
{
    for (int i = 0; i < 40; i++)
        CHECK_EQ(answer(NUMBER + i), i >= from && i < to ? 100 + i : ENOSYS);
    if (to > from)
        CHECK_EQ(answer(NUMBER + 500), 200 + to - 1); /* of equal actions that of the newest filter */
}

static void *other(void *unused)
{
    install(30, 0);
    install(31, 0);
    thread_hold();
    check_stack(30, 32);
    return unused;
}

static int seccomp_mode(void)
{
    char text[8192];
    read_file("/proc/self/status", text, sizeof text);
    char *at = strstr(text, "Seccomp:");
    return at ? atoi(at + 8) : -1;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int count = variant("one") ? 1 : variant("threads") ? 3 : 30;
    pthread_t thread = 0;
    if (!variant("privileged"))
        SYS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    if (variant("threads")) {
        thread = start_thread(other, NULL);
        await_threads(1);
    }
    for (int i = 0; i < count; i++)
        install(i, i == 1 ? SECCOMP_FILTER_FLAG_LOG : 0);
    check_stack(0, count);
    subject_hold();
    check_stack(0, count);
    CHECK_EQ(seccomp_mode(), 2);
    CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), !variant("privileged"));
    if (thread) {
        release_threads();
        PTHREAD(pthread_join(thread, NULL));
    }
    install(35, 0); /* more can be added */
    CHECK_EQ(answer(NUMBER + 35), 135);
    subject_pass();
}
