/* A process that is never at rest: threads, forked children and programs come and go all the time, before, while and after. Each result
 * is checked. */
#include "subject.h"
#include <spawn.h>

extern char **environ;
static atomic_int ending, rounds;

static void *adds(void *number)
{
    return (void *)((long)number * 3 + 1);
}

static void once(long number)
{
    int status;
    if (variant("threads")) {
        pthread_t thread[3];
        for (long i = 0; i < 3; i++)
            thread[i] = start_thread(adds, (void *)(number + i));
        for (long i = 0; i < 3; i++) {
            void *result;
            PTHREAD(pthread_join(thread[i], &result));
            CHECK_EQ((long)result, (number + i) * 3 + 1);
        }
        return;
    }
    pid_t pid;
    if (variant("fork")) {
        pid = SYS(fork());
        if (pid == 0)
            _exit(number & 127);
    } else if (variant("vfork")) {
        pid = vfork();
        if (pid == 0) {
            struct timespec a_moment = {0, 3 * NS_PER_MS};
            syscall(SYS_nanosleep, &a_moment, NULL);
            _exit(number & 127);
        }
        CHECK(pid > 0, "vfork: %s", strerror(errno));
    } else {
        char text[32];
        snprintf(text, sizeof text, "exit %ld", number & 127);
        char *arguments[] = {"sh", "-c", text, NULL};
        PTHREAD(posix_spawn(&pid, "/bin/sh", NULL, NULL, arguments, environ));
    }
    pid_t got;
    do
        got = waitpid(pid, &status, 0);
    while (got < 0 && errno == EINTR);
    CHECK(got == pid, "waitpid(%d) gave %d: %s", pid, got, strerror(errno));
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == (number & 127), "child %d ended with 0x%x", pid, status);
}

static void *goes_on(void *number)
{
    for (long i = (long)number; !atomic_load(&ending); i++) {
        once(i);
        atomic_fetch_add(&rounds, 1);
        nap_ms(1);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_t thread[2];
    for (long i = 0; i < 2; i++)
        thread[i] = start_thread(goes_on, (void *)(i * 50));
    await_that(atomic_load(&rounds) > 10);
    publish_ready("ready");
    await_go();
    int before = atomic_load(&rounds);
    await_that(atomic_load(&rounds) > before + 10);
    atomic_store(&ending, 1);
    for (int i = 0; i < 2; i++)
        PTHREAD(pthread_join(thread[i], NULL));
    CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD, "a child is left");
    subject_pass();
}
