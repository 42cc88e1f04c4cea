/* Names of threads, also ones with spaces, brackets and all fifteen bytes. */
#include "subject.h"

static const char *names[] = {"fifteen bytes!!", ") R 1 (", "", "new\tline"};

static void *body(void *argument)
{
    char name[16];
    SYS(prctl(PR_SET_NAME, argument));
    thread_hold();
    SYS(prctl(PR_GET_NAME, name));
    CHECK(strcmp(name, argument) == 0, "name is '%s', wanted '%s'", name, (char *)argument);
    return NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char name[16];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        threads[i] = start_thread(body, (void *)names[i]);
    await_threads(4);
    SYS(prctl(PR_SET_NAME, "main: renamed"));
    subject_hold();
    SYS(prctl(PR_GET_NAME, name));
    CHECK(strcmp(name, "main: renamed") == 0, "name is %s", name);
    release_threads();
    for (int i = 0; i < 4; i++)
        PTHREAD(pthread_join(threads[i], NULL));
    subject_pass();
}
