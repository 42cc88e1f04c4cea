/* Sixty-four threads, each with its own id, stack content, name, signal mask and blocked signal. */
#include "subject.h"

#define THREADS 64
static pid_t tids[THREADS];

static void *body(void *argument)
{
    long index = (long)argument;
    uint64_t on_stack[64];
    char name[16], seen[16];
    sigset_t mask, now;
    fill(on_stack, sizeof on_stack, index);
    snprintf(name, sizeof name, "worker-%ld", index);
    SYS(prctl(PR_SET_NAME, name));
    sigemptyset(&mask);
    sigaddset(&mask, SIGRTMIN + index % 20);
    PTHREAD(pthread_sigmask(SIG_SETMASK, &mask, NULL));
    tids[index] = thread_id();
    thread_hold();
    CHECK_EQ(thread_id(), tids[index]);
    check_filled(on_stack, sizeof on_stack, index, "stack");
    SYS(prctl(PR_GET_NAME, seen));
    CHECK(strcmp(seen, name) == 0, "thread %ld is called %s, wanted %s", index, seen, name);
    PTHREAD(pthread_sigmask(SIG_SETMASK, NULL, &now));
    for (int signal = 1; signal <= SIGRTMAX; signal++)
        CHECK(sigismember(&now, signal) == sigismember(&mask, signal), "thread %ld: mask differs at %d", index,
              signal);
    return (void *)(index * 3 + 1);
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
    for (long i = 0; i < THREADS; i++) {
        void *value;
        PTHREAD(pthread_join(threads[i], &value));
        CHECK_EQ((long)value, i * 3 + 1);
    }
    pthread_t fresh = start_thread(body, (void *)5); /* new threads can be made afterwards */
    PTHREAD(pthread_join(fresh, NULL));
    subject_pass();
}
