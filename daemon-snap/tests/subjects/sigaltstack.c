/* Alternate signal stacks of two threads, one with SS_AUTODISARM, are where they were, and handlers run on them. */
#include "subject.h"
#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31)
#endif

static char areas[2][32768] __attribute__((aligned(16)));
static __thread volatile uintptr_t handler_frame;

static void on_usr2(int signal)
{
    char here;
    (void)signal;
    handler_frame = (uintptr_t)&here;
}

static void check_stack(int index, int flags)
{
    stack_t now;
    SYS(sigaltstack(NULL, &now));
    CHECK_EQ((uintptr_t)now.ss_sp, (uintptr_t)areas[index]);
    CHECK_EQ(now.ss_size, sizeof areas[index]);
    CHECK_EQ(now.ss_flags, flags);
    SYS(syscall(SYS_tgkill, getpid(), thread_id(), SIGUSR2));
    CHECK(handler_frame > (uintptr_t)areas[index] && handler_frame < (uintptr_t)areas[index + 1],
          "the handler ran at 0x%lx, not on stack %d", (long)handler_frame, index);
    SYS(sigaltstack(NULL, &now));
    CHECK_EQ(now.ss_flags, flags);
}

static void *body(void *unused)
{
    stack_t stack = {.ss_sp = areas[1], .ss_size = sizeof areas[1], .ss_flags = (int)SS_AUTODISARM};
    SYS(sigaltstack(&stack, NULL));
    thread_hold();
    check_stack(1, (int)SS_AUTODISARM);
    return unused;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sigaction action = {.sa_handler = on_usr2, .sa_flags = SA_ONSTACK};
    SYS(sigaction(SIGUSR2, &action, NULL));
    stack_t stack = {.ss_sp = areas[0], .ss_size = sizeof areas[0]};
    SYS(sigaltstack(&stack, NULL));
    pthread_t thread = start_thread(body, NULL);
    await_threads(1);
    subject_hold();
    check_stack(0, 0);
    release_threads();
    PTHREAD(pthread_join(thread, NULL));
    subject_pass();
}
