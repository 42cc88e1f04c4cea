/* Threads that end after the restore wake those who join them (set_tid_address), also when the end comes late. */
#include "subject.h"

static void *body(void *argument)
{
    thread_hold();
    nap_ms(10 * (int)(long)argument);
    return argument;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_t threads[4];
    for (long i = 0; i < 4; i++)
        threads[i] = start_thread(body, (void *)i);
    await_threads(4);
    subject_hold();
    release_threads();
    for (long i = 3; i >= 0; i--) {
        void *value;
        struct timespec limit;
        clock_gettime(CLOCK_REALTIME, &limit);
        limit.tv_sec += 5;
        PTHREAD(pthread_timedjoin_np(threads[i], &value, &limit));
        CHECK_EQ((long)value, i);
    }
    char text[4096];
    await_that(read_file("/proc/self/status", text, sizeof text) > 0 && strstr(text, "Threads:\t1\n"));
    subject_pass();
}
