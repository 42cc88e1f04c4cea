/* Taken in the middle of a handler on an alternate stack; afterwards the handler returns into what it interrupted. */
#include "subject.h"

static char area[65536];
static volatile uint64_t before[4], after[4];

static void on_usr1(int signal)
{
    char here;
    (void)signal;
    stack_t now;
    subject_hold();
    SYS(sigaltstack(NULL, &now));
    CHECK(now.ss_flags & SS_ONSTACK, "not on the alternate stack");
    CHECK(&here > area && &here < area + sizeof area, "the handler's frame moved");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    stack_t stack = {.ss_sp = area, .ss_size = sizeof area};
    SYS(sigaltstack(&stack, NULL));
    struct sigaction action = {.sa_handler = on_usr1, .sa_flags = SA_ONSTACK};
    sigaddset(&action.sa_mask, SIGALRM);
    SYS(sigaction(SIGUSR1, &action, NULL));
    for (int i = 0; i < 4; i++)
        before[i] = pattern(5, i);
    pid_t pid = getpid();
    /* kill(2) by hand: the values stay in registers across the handler */
    __asm__ volatile("mov %[a], %%r12\n mov %[b], %%r13\n mov %[c], %%r14\n movq %[d], %%xmm7\n"
                     "syscall\n"
                     "mov %%r12, %[w]\n mov %%r13, %[x]\n mov %%r14, %[y]\n movq %%xmm7, %[z]\n"
                     : [w] "=m"(after[0]), [x] "=m"(after[1]), [y] "=m"(after[2]), [z] "=m"(after[3])
                     : "a"((long)SYS_kill), "D"((long)pid), "S"((long)SIGUSR1), [a] "m"(before[0]), [b] "m"(before[1]),
                       [c] "m"(before[2]), [d] "m"(before[3])
                     : "rcx", "r11", "r12", "r13", "r14", "xmm7", "memory", "cc");
    for (int i = 0; i < 4; i++)
        CHECK(after[i] == before[i], "register %d is 0x%lx after the handler, wanted 0x%lx", i, after[i], before[i]);
    sigset_t now;
    PTHREAD(pthread_sigmask(SIG_SETMASK, NULL, &now));
    CHECK(!sigismember(&now, SIGALRM) && !sigismember(&now, SIGUSR1), "the mask is still the handler's");
    stack_t left;
    SYS(sigaltstack(NULL, &left));
    CHECK_EQ(left.ss_flags, 0);
    subject_pass();
}
