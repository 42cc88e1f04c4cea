/* Scheduling per thread: nice, batch, idle, round robin with priority, reset on fork, I/O priority, affinity, timer slack. */
#include "subject.h"
#include <sched.h>

#define THREADS 5
struct sched_attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

static const struct {
    struct sched_attributes sched;
    int ioprio, cpu;
    unsigned long slack;
} wanted[THREADS] = {
    {{.policy = SCHED_OTHER, .nice = 5}, 2 << 13 | 6, 0, 60000},
    {{.policy = SCHED_BATCH, .nice = 7}, 3 << 13, 1, 70000},
    {{.policy = SCHED_IDLE}, 1 << 13 | 3, 0, 1},
    {{.policy = SCHED_RR, .priority = 2}, 0, 1, 0},
    {{.policy = SCHED_OTHER, .nice = -4, .flags = 1 /* reset on fork */}, 2 << 13, -1, 50000},
};

static void check(int index, const struct sched_attributes *before)
{
    struct sched_attributes now = {0};
    SYS(syscall(SYS_sched_getattr, 0, &now, sizeof now, 0));
    CHECK_EQ(now.policy, wanted[index].sched.policy);
    CHECK_EQ(now.flags, wanted[index].sched.flags);
    CHECK_EQ(now.nice, before->nice);
    CHECK_EQ(now.priority, wanted[index].sched.priority);
    CHECK_EQ(now.runtime, before->runtime);
    CHECK_EQ(syscall(SYS_ioprio_get, 1, 0), wanted[index].ioprio);
    if (wanted[index].slack)
        CHECK_EQ(SYS(prctl(PR_GET_TIMERSLACK)), wanted[index].slack);
    cpu_set_t cpus;
    SYS(sched_getaffinity(0, sizeof cpus, &cpus));
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    if (wanted[index].cpu >= 0) {
        CHECK_EQ(CPU_COUNT(&cpus), 1);
        CHECK(CPU_ISSET(wanted[index].cpu % online, &cpus), "thread %d is bound to another CPU", index);
    } else {
        CHECK_EQ(CPU_COUNT(&cpus), online);
    }
}

static void *body(void *argument)
{
    long index = (long)argument;
    struct sched_attributes attributes = wanted[index].sched, before = {0};
    attributes.size = sizeof attributes;
    if (wanted[index].cpu >= 0) {
        cpu_set_t cpus;
        CPU_ZERO(&cpus);
        CPU_SET(wanted[index].cpu % sysconf(_SC_NPROCESSORS_ONLN), &cpus);
        SYS(sched_setaffinity(0, sizeof cpus, &cpus));
    }
    SYS(syscall(SYS_ioprio_set, 1, 0, wanted[index].ioprio));
    SYS(syscall(SYS_sched_setattr, 0, &attributes, 0));
    if (wanted[index].slack)
        SYS(prctl(PR_SET_TIMERSLACK, wanted[index].slack));
    SYS(syscall(SYS_sched_getattr, 0, &before, sizeof before, 0));
    if (attributes.policy == SCHED_OTHER || attributes.policy == SCHED_BATCH)
        CHECK_EQ(before.nice, attributes.nice);
    thread_hold();
    check(index, &before);
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_t threads[THREADS];
    SYS(setpriority(PRIO_PROCESS, 0, 3));
    for (long i = 0; i < THREADS; i++)
        threads[i] = start_thread(body, (void *)i);
    await_threads(THREADS);
    subject_hold();
    CHECK_EQ(getpriority(PRIO_PROCESS, 0), 3);
    release_threads();
    for (int i = 0; i < THREADS; i++)
        PTHREAD(pthread_join(threads[i], NULL));
    subject_pass();
}
