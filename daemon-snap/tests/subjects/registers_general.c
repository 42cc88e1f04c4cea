/* A thread that spins with a value of its own in every general register keeps them all. */
#include "subject.h"

/* Named in the assembly below. */
__attribute__((visibility("hidden"))) volatile uint32_t running = 1;
__attribute__((visibility("hidden"))) uint64_t held[14];
static uint64_t wanted[13];

static void *spin(void *unused)
{
    atomic_fetch_add(&subject_arrived, 1);
    /* rsi points to the values until it gets its own. rcx belongs to the loop; rax counts rounds and must have grown. */
    __asm__ volatile(
        "push %%rbp\n"
        "mov 0(%[from]), %%rbx\n mov 8(%[from]), %%rdx\n mov 16(%[from]), %%rdi\n"
        "mov 32(%[from]), %%r8\n mov 40(%[from]), %%r9\n mov 48(%[from]), %%r10\n mov 56(%[from]), %%r11\n"
        "mov 64(%[from]), %%r12\n mov 72(%[from]), %%r13\n mov 80(%[from]), %%r14\n mov 88(%[from]), %%r15\n"
        "mov 96(%[from]), %%rbp\n mov 24(%[from]), %%rsi\n"
        "xor %%eax, %%eax\n"
        "1: inc %%rax\n pause\n"
        "movl running(%%rip), %%ecx\n"
        "test %%ecx, %%ecx\n jnz 1b\n"
        "lea held(%%rip), %%rcx\n"
        "mov %%rbx, 0(%%rcx)\n mov %%rdx, 8(%%rcx)\n mov %%rdi, 16(%%rcx)\n mov %%rsi, 24(%%rcx)\n"
        "mov %%r8, 32(%%rcx)\n mov %%r9, 40(%%rcx)\n mov %%r10, 48(%%rcx)\n mov %%r11, 56(%%rcx)\n"
        "mov %%r12, 64(%%rcx)\n mov %%r13, 72(%%rcx)\n mov %%r14, 80(%%rcx)\n mov %%r15, 88(%%rcx)\n"
        "mov %%rbp, 96(%%rcx)\n mov %%rax, 104(%%rcx)\n"
        "pop %%rbp\n"
        :
        : [from] "S"(wanted)
        : "rax", "rbx", "rcx", "rdx", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
    return unused;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    for (int i = 0; i < 13; i++)
        wanted[i] = pattern(7, i);
    pthread_t thread = start_thread(spin, NULL);
    await_threads(1);
    nap_ms(5);
    subject_hold();
    nap_ms(5);
    running = 0;
    PTHREAD(pthread_join(thread, NULL));
    for (int i = 0; i < 13; i++)
        CHECK(held[i] == wanted[i], "register %d is 0x%lx, wanted 0x%lx", i, held[i], wanted[i]);
    CHECK(held[13] > 1000, "the loop made only %lu rounds", held[13]);
    subject_pass();
}
