/* Keys in the keyrings of a session, a process and two threads: not carried, and named. Who is left alone has them as before. */
#include "subject.h"
#include <linux/keyctl.h>

static long keyring(int which)
{
    return syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, which, 0);
}

static long add(const char *name, int where)
{
    return SYS(syscall(SYS_add_key, "user", name, "secret", 6, where));
}

static bool has(const char *name, long where)
{
    char bytes[16];
    long key = where < 0 ? -1 : syscall(SYS_keyctl, KEYCTL_SEARCH, where, "user", name, 0);
    return key > 0 && syscall(SYS_keyctl, KEYCTL_READ, key, bytes, sizeof bytes) == 6 && memcmp(bytes, "secret", 6) == 0;
}

static void *other(void *unused)
{
    add("of-the-thread", KEY_SPEC_THREAD_KEYRING);
    thread_hold();
    CHECK_EQ(has("of-the-thread", keyring(KEY_SPEC_THREAD_KEYRING)), !subject_was_restored);
    return unused;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0)
        subject_skip("no keyrings");
    add("of-the-session", KEY_SPEC_SESSION_KEYRING);
    add("of-the-process", KEY_SPEC_PROCESS_KEYRING);
    add("of-the-main-thread", KEY_SPEC_THREAD_KEYRING);
    pthread_t thread = start_thread(other, NULL);
    await_threads(1);
    subject_hold();
    CHECK_EQ(has("of-the-session", keyring(KEY_SPEC_SESSION_KEYRING)), !subject_was_restored);
    CHECK_EQ(has("of-the-process", keyring(KEY_SPEC_PROCESS_KEYRING)), !subject_was_restored);
    CHECK_EQ(has("of-the-main-thread", keyring(KEY_SPEC_THREAD_KEYRING)), !subject_was_restored);
    release_threads();
    PTHREAD(pthread_join(thread, NULL));
    subject_pass();
}
