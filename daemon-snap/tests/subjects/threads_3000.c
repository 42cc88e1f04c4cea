/* Three thousand threads, each with a name, a mask and a value of its own. */
#include "subject.h"

#define THREADS 3000
static __thread long own;
static pthread_t threads[THREADS];

static void *body(void *argument)
{
    long index = (long)argument;
    char name[16], text[16] = "";
    own = index * 7 + 1;
    snprintf(name, sizeof name, "t%ld", index);
    SYS(prctl(PR_SET_NAME, name));
    sigset_t mask, now;
    sigemptyset(&mask);
    sigaddset(&mask, SIGRTMIN + index % 20);
    PTHREAD(pthread_sigmask(SIG_SETMASK, &mask, NULL));
    pid_t tid = thread_id();
    thread_hold();
    CHECK_EQ(own, index * 7 + 1);
    CHECK_EQ(thread_id(), tid);
    SYS(prctl(PR_GET_NAME, text));
    CHECK(strcmp(name, text) == 0, "thread %ld is called %s", index, text);
    PTHREAD(pthread_sigmask(SIG_SETMASK, NULL, &now));
    CHECK(sigismember(&now, SIGRTMIN + index % 20) == 1 && sigismember(&now, SIGRTMIN + (index + 1) % 20) == 0,
          "thread %ld has another mask", index);
    return (void *)own;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_attr_t attributes;
    PTHREAD(pthread_attr_init(&attributes));
    PTHREAD(pthread_attr_setstacksize(&attributes, 65536));
    for (long i = 0; i < THREADS; i++) {
        int error = pthread_create(&threads[i], &attributes, body, (void *)i);
        if (error == EAGAIN)
            subject_skip("not that many threads are allowed");
        PTHREAD(error);
    }
    await_threads(THREADS);
    publish_ready("ready");
    await_go();
    release_threads();
    for (long i = 0; i < THREADS; i++) {
        void *result;
        PTHREAD(pthread_join(threads[i], &result));
        CHECK_EQ((long)result, i * 7 + 1);
    }
    subject_pass();
}
