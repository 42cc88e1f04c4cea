/* Variants locked, keepcaps: secure bits with their locks, and the keep-capabilities flag, per thread. */
#include "subject.h"
#include <linux/securebits.h>

static void *other(void *unused)
{
    thread_hold();
    CHECK_EQ(SYS(prctl(PR_GET_SECUREBITS)), 0); /* began before main set its own */
    return unused;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_t thread = start_thread(other, NULL);
    await_threads(1);
    int wanted = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS |
                 SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE;
    if (variant("locked"))
        SYS(prctl(PR_SET_SECUREBITS, wanted));
    else
        SYS(prctl(PR_SET_KEEPCAPS, wanted = 1));
    subject_hold();
    CHECK_EQ(SYS(prctl(PR_GET_SECUREBITS)), variant("locked") ? wanted : SECBIT_KEEP_CAPS);
    CHECK_EQ(SYS(prctl(PR_GET_KEEPCAPS)), 1);
    if (variant("locked"))
        CHECK(prctl(PR_SET_SECUREBITS, 0) < 0 && errno == EPERM, "the lock was lost");
    release_threads();
    PTHREAD(pthread_join(thread, NULL));
    subject_pass();
}
