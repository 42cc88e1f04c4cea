/* Arithmetic and direction flags of a spinning thread come back as they were. */
#include "subject.h"

/* CF PF AF ZF SF DF OF: those a signal frame carries. jrcxz and mov change none of them. */
#define ALL_FLAGS 0xcd5ul

struct spinner {
    volatile uint64_t running;
    uint64_t set, seen;
};

static void *spin(void *argument)
{
    struct spinner *spinner = argument;
    atomic_fetch_add(&subject_arrived, 1);
    __asm__ volatile("pushfq\n pop %%rax\n and %[clear], %%rax\n or %[set], %%rax\n push %%rax\n popfq\n"
                     "1: mov (%[running]), %%rcx\n jrcxz 2f\n jmp 1b\n"
                     "2: pushfq\n pop %%rax\n cld\n mov %%rax, %[seen]\n"
                     : [seen] "=m"(spinner->seen)
                     : [clear] "r"(~ALL_FLAGS), [set] "r"(spinner->set), [running] "r"(&spinner->running)
                     : "rax", "rcx", "memory", "cc");
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static struct spinner all = {.running = 1, .set = ALL_FLAGS}, none = {.running = 1, .set = 0};
    pthread_t a = start_thread(spin, &all), b = start_thread(spin, &none);
    await_threads(2);
    nap_ms(5);
    subject_hold();
    nap_ms(5);
    all.running = none.running = 0;
    PTHREAD(pthread_join(a, NULL));
    PTHREAD(pthread_join(b, NULL));
    CHECK_EQ(all.seen & ALL_FLAGS, ALL_FLAGS);
    CHECK_EQ(none.seen & ALL_FLAGS, 0);
    subject_pass();
}
