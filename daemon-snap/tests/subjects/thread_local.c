/* Thread local variables keep value and address in eight threads; so does the base of gs. */
#include "subject.h"
#include <asm/prctl.h>

#define THREADS 8
static __thread uint64_t mine[16];
static __thread int last_error;
static uint64_t gs_areas[THREADS][8];

static void *body(void *argument)
{
    long index = (long)argument;
    unsigned long gs = 0;
    uint64_t *address = mine;
    fill(mine, sizeof mine, index);
    last_error = errno = 1000 + index;
    SYS(syscall(SYS_arch_prctl, ARCH_SET_GS, gs_areas[index]));
    gs_areas[index][2] = pattern(3, index);
    thread_hold();
    CHECK(mine == address, "thread %ld finds its variable at %p, was %p", index, (void *)mine, (void *)address);
    check_filled(mine, sizeof mine, index, "thread local array");
    CHECK_EQ(last_error, 1000 + index);
    SYS(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs));
    CHECK_EQ(gs, (unsigned long)gs_areas[index]);
    uint64_t through_gs;
    __asm__ volatile("mov %%gs:16, %0" : "=r"(through_gs));
    CHECK_EQ(through_gs, pattern(3, index));
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_t threads[THREADS];
    for (long i = 0; i < THREADS; i++)
        threads[i] = start_thread(body, (void *)i);
    await_threads(THREADS);
    subject_hold();
    release_threads();
    for (int i = 0; i < THREADS; i++)
        PTHREAD(pthread_join(threads[i], NULL));
    subject_pass();
}
