/* Variants all (everything dropped to nobody), mixed: real, effective, saved and file system ids, the
 * supplementary groups, and a thread that differs from the others. */
#include "subject.h"
#include <grp.h>
#include <sys/fsuid.h>

static void check_ids(uid_t r, uid_t e, uid_t s, uid_t fs)
{
    uid_t a, b, c;
    SYS(syscall(SYS_getresuid, &a, &b, &c));
    CHECK(a == r && b == e && c == s, "uids are %u %u %u, wanted %u %u %u", a, b, c, r, e, s);
    SYS(syscall(SYS_getresgid, &a, &b, &c));
    CHECK(a == r + 1 && b == e + 1 && c == s + 1, "gids are %u %u %u", a, b, c);
    CHECK_EQ(syscall(SYS_setfsuid, -1), fs);
}

static void *other(void *unused)
{
    SYS(syscall(SYS_setresgid, 2001, 2002, 2003));
    SYS(syscall(SYS_setresuid, 2000, 2001, 2002));
    thread_hold();
    check_ids(2000, 2001, 2002, 2001);
    return unused;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    gid_t groups[] = {7, 65534, 100000, 70000}, seen[8];
    int count = 4;
    if (variant("all"))
        count = 0;
    SYS(setgroups(count, groups));
    pthread_t thread = start_thread(other, NULL);
    await_threads(1);
    if (variant("all")) {
        SYS(syscall(SYS_setresgid, 65535, 65535, 65535));
        SYS(syscall(SYS_setresuid, 65534, 65534, 65534));
    } else {
        SYS(syscall(SYS_setresgid, 1001, 1002, 1));
        SYS(syscall(SYS_setresuid, 1000, 1001, 0));
        SYS(syscall(SYS_setfsuid, 1000) >= 0 ? 0 : -1);
    }
    subject_hold();
    if (variant("all"))
        check_ids(65534, 65534, 65534, 65534);
    else
        check_ids(1000, 1001, 0, 1000);
    CHECK_EQ(getgroups(8, seen), count);
    for (int i = 0; i < count; i++) {
        bool found = false;
        for (int j = 0; j < count; j++)
            found |= seen[i] == groups[j];
        CHECK(found, "member of group %u", seen[i]);
    }
    release_threads();
    PTHREAD(pthread_join(thread, NULL));
    subject_pass();
}
