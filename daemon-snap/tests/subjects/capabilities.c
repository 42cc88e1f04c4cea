/* Variants root, user: all five capability sets of two threads; what is missing stays missing. */
#include "subject.h"
#include <linux/capability.h>

struct sets {
    uint64_t effective, permitted, inheritable, bounding, ambient;
};

static struct sets get(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    SYS(syscall(SYS_capget, &header, data));
    struct sets sets = {data[0].effective | (uint64_t)data[1].effective << 32,
                        data[0].permitted | (uint64_t)data[1].permitted << 32,
                        data[0].inheritable | (uint64_t)data[1].inheritable << 32, 0, 0};
    for (int cap = 0; cap < 64; cap++) {
        if (prctl(PR_CAPBSET_READ, cap) == 1)
            sets.bounding |= 1ull << cap;
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0) == 1)
            sets.ambient |= 1ull << cap;
    }
    return sets;
}

static void set(uint64_t effective, uint64_t permitted, uint64_t inheritable)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{effective, permitted, inheritable},
                                             {effective >> 32, permitted >> 32, inheritable >> 32}};
    SYS(syscall(SYS_capset, &header, data));
}

static void check_same(struct sets before)
{
    struct sets now = get();
    CHECK(memcmp(&before, &now, sizeof now) == 0,
          "effective %lx permitted %lx inheritable %lx bounding %lx ambient %lx, were %lx %lx %lx %lx %lx",
          now.effective, now.permitted, now.inheritable, now.bounding, now.ambient, before.effective,
          before.permitted, before.inheritable, before.bounding, before.ambient);
}

#define BIT(cap) (1ull << (cap))

static void *other(void *unused)
{
    SYS(prctl(PR_CAPBSET_DROP, CAP_SYS_MODULE));
    set(BIT(CAP_CHOWN), BIT(CAP_CHOWN) | BIT(CAP_KILL), BIT(CAP_KILL));
    SYS(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0));
    struct sets before = get();
    thread_hold();
    check_same(before);
    return unused;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_t thread = start_thread(other, NULL);
    await_threads(1);
    SYS(prctl(PR_CAPBSET_DROP, CAP_SYS_PTRACE));
    SYS(prctl(PR_CAPBSET_DROP, CAP_MKNOD));
    uint64_t few = BIT(CAP_NET_BIND_SERVICE) | BIT(CAP_SETUID) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_SYSLOG);
    if (variant("user")) {
        SYS(prctl(PR_SET_KEEPCAPS, 1));
        SYS(syscall(SYS_setresuid, 1000, 1000, 1000));
    }
    set(BIT(CAP_NET_BIND_SERVICE), few, BIT(CAP_NET_BIND_SERVICE) | BIT(CAP_SYSLOG));
    SYS(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0));
    struct sets before = get();
    CHECK_EQ(before.ambient, BIT(CAP_NET_BIND_SERVICE));
    CHECK(before.permitted == few && !(before.bounding & BIT(CAP_MKNOD)), "the sets were not made");
    subject_hold();
    check_same(before);
    CHECK(chroot("/") < 0 && errno == EPERM, "a capability that was given up is back");
    release_threads();
    PTHREAD(pthread_join(thread, NULL));
    subject_pass();
}
