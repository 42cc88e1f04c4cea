/* SCHED_DEADLINE: its three times and its flags; a thread with reset on fork makes ordinary ones. */
#include "subject.h"
#include <sched.h>

struct sched_attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

#define RESET_ON_FORK 1
#define DL_OVERRUN 4
static const struct sched_attributes wanted[2] = {
    {48, SCHED_DEADLINE, RESET_ON_FORK, 0, 0, 2 * NS_PER_MS, 60 * NS_PER_MS, 100 * NS_PER_MS},
    {48, SCHED_DEADLINE, DL_OVERRUN, 0, 0, 20 * NS_PER_MS, 100 * NS_PER_MS, 100 * NS_PER_MS},
};
static atomic_int unable;

/* Its default ends the process without a word. */
static void on_overrun(int signal)
{
    static const char words[] = "a thread had used up its runtime\n";
    if (write(2, words, sizeof words - 1) < 0)
        _exit(signal);
}

static void *ordinary(void *unused)
{
    CHECK_EQ(sched_getscheduler(0), SCHED_OTHER);
    return unused;
}

static void *body(void *argument)
{
    long index = (long)argument;
    struct sched_attributes attributes = wanted[index], now = {0};
    if (syscall(SYS_sched_setattr, 0, &attributes, 0) < 0)
        atomic_store(&unable, errno);
    thread_hold();
    if (atomic_load(&unable))
        return NULL;
    SYS(syscall(SYS_sched_getattr, 0, &now, sizeof now, 0));
    CHECK_EQ(now.policy, wanted[index].policy);
    CHECK_EQ(now.flags, wanted[index].flags);
    CHECK_EQ(now.runtime, wanted[index].runtime);
    CHECK_EQ(now.deadline, wanted[index].deadline);
    CHECK_EQ(now.period, wanted[index].period);
    if (index == 0)
        PTHREAD(pthread_join(start_thread(ordinary, NULL), NULL));
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_t threads[2];
    SYS(sigaction(SIGXCPU, &(struct sigaction){.sa_handler = on_overrun, .sa_flags = SA_RESTART}, NULL));
    for (long i = 0; i < 2; i++)
        threads[i] = start_thread(body, (void *)i);
    await_threads(2);
    if (atomic_load(&unable) == EPERM || atomic_load(&unable) == EBUSY || atomic_load(&unable) == EINVAL)
        subject_skip("no SCHED_DEADLINE here");
    CHECK_EQ(atomic_load(&unable), 0);
    subject_hold();
    release_threads();
    for (int i = 0; i < 2; i++)
        PTHREAD(pthread_join(threads[i], NULL));
    subject_pass();
}
