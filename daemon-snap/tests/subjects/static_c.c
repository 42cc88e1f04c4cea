/* Statically linked (glibc and musl): threads, heap, thread local storage, timers and a pipe in one small program. */
#include "subject.h"

static __thread int mine;
static int ends[2];
static volatile int alarms;

static void on_alarm(int signal)
{
    (void)signal;
    alarms++;
}

static void *body(void *argument)
{
    mine = (int)(long)argument;
    char *block = malloc(5000);
    fill(block, 5000, mine);
    thread_hold();
    CHECK_EQ(mine, (long)argument);
    check_filled(block, 5000, mine, "heap of a thread");
    free(block);
    return argument;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    sigaction(SIGRTMIN + 1, &action, NULL);
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1};
    SYS(timer_create(CLOCK_MONOTONIC, &event, &timer));
    SYS(timer_settime(timer, 0, &(struct itimerspec){{0, 0}, {900, 0}}, NULL));
    SYS(pipe2(ends, O_CLOEXEC));
    SYS(write(ends[1], "static", 6));
    char *big = malloc(1 << 20);
    fill(big, 1 << 20, 9);
    pthread_t threads[4];
    for (long i = 0; i < 4; i++)
        threads[i] = start_thread(body, (void *)(i + 40));
    await_threads(4);
    subject_hold();
    char bytes[8];
    CHECK_EQ(read(ends[0], bytes, 8), 6);
    check_filled(big, 1 << 20, 9, "large block");
    release_threads();
    for (long i = 0; i < 4; i++) {
        void *value;
        PTHREAD(pthread_join(threads[i], &value));
        CHECK_EQ((long)value, i + 40);
    }
    pthread_t fresh = start_thread(body, (void *)7);
    PTHREAD(pthread_join(fresh, NULL));
    struct itimerspec left;
    SYS(timer_gettime(timer, &left));
    CHECK(left.it_value.tv_sec > 700 && left.it_value.tv_sec < 900, "timer has %ld s left", left.it_value.tv_sec);
    SYS(timer_settime(timer, 0, &(struct itimerspec){{0, 0}, {0, 1000000}}, NULL));
    await_that(alarms == 1);
    void *small[50];
    for (int i = 0; i < 50; i++)
        small[i] = malloc(30 * i + 1);
    for (int i = 0; i < 50; i++)
        free(small[i]);
    pid_t pid = SYS(fork());
    if (pid == 0)
        _exit(0);
    reap(pid);
    subject_pass();
}
