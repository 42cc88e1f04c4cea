/* Variants one, many (threads): a restore leaves at most one page and a signal frame per further
 * thread in the address space. */
#include "subject.h"

static void *body(void *unused)
{
    thread_hold();
    return unused;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_t threads[20];
    int count = variant("many") ? 20 : 0;
    for (int i = 0; i < count; i++)
        threads[i] = start_thread(body, NULL);
    await_threads(count);
    subject_hold();
    CHECK(common_extra <= 4096u * (1 + (unsigned)count), "%zu bytes were left behind", common_extra);
    release_threads();
    for (int i = 0; i < count; i++)
        PTHREAD(pthread_join(threads[i], NULL));
    subject_pass();
}
