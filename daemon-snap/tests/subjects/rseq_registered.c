/* rseq stays registered in every thread: the kernel goes on writing the CPU number, and refuses a second registration. */
#include "subject.h"
#include <sched.h>
#include <sys/rseq.h>

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    SYS(sched_setaffinity(0, sizeof set, &set));
}

static struct rseq *area(void)
{
    return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
}

static void check_live(void)
{
    int cpus = sysconf(_SC_NPROCESSORS_ONLN);
    for (int round = 0; round < 4; round++) {
        pin(round % (cpus > 1 ? 2 : 1));
        CHECK_EQ(((volatile struct rseq *)area())->cpu_id, sched_getcpu());
        CHECK_EQ(((volatile struct rseq *)area())->cpu_id, round % (cpus > 1 ? 2 : 1));
    }
    long again = syscall(SYS_rseq, area(), 32, 0, RSEQ_SIG);
    CHECK(again == -1 && errno == EBUSY, "a second registration gave %ld: %s", again, strerror(errno));
}

static void *body(void *unused)
{
    thread_hold();
    check_live();
    return unused;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (__rseq_size == 0)
        subject_skip("libc registered no rseq");
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        threads[i] = start_thread(body, NULL);
    await_threads(3);
    subject_hold();
    release_threads();
    check_live();
    for (int i = 0; i < 3; i++)
        PTHREAD(pthread_join(threads[i], NULL));
    subject_pass();
}
