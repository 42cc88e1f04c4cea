/* All resource limits, soft and hard, lowered ones too; one of them is enforced. */
#include "subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static const struct {
        int resource;
        rlim_t soft, hard;
    } lowered[] = {{RLIMIT_NOFILE, 100, 200}, {RLIMIT_CORE, 0, 12345}, {RLIMIT_STACK, 4 << 20, 16 << 20},
                   {RLIMIT_NPROC, 5000, 6000}, {RLIMIT_MEMLOCK, 65536, 131072}, {RLIMIT_SIGPENDING, 99, 199},
                   {RLIMIT_MSGQUEUE, 4096, 8192}, {RLIMIT_NICE, 10, 20}, {RLIMIT_RTPRIO, 3, 4},
                   {RLIMIT_RTTIME, 500000, RLIM_INFINITY}, {RLIMIT_CPU, 1000, RLIM_INFINITY},
                   {RLIMIT_FSIZE, 1 << 20, 1 << 30}, {RLIMIT_DATA, 1 << 30, 2u << 30}, {RLIMIT_LOCKS, 7, 8}};
    struct rlimit before[16], now;
    for (size_t i = 0; i < sizeof lowered / sizeof lowered[0]; i++) {
        SYS(getrlimit(lowered[i].resource, &now));
        now.rlim_max = lowered[i].hard < now.rlim_max ? lowered[i].hard : now.rlim_max;
        now.rlim_cur = lowered[i].soft < now.rlim_max ? lowered[i].soft : now.rlim_max;
        SYS(setrlimit(lowered[i].resource, &now));
    }
    SYS(setrlimit(RLIMIT_AS, &(struct rlimit){1ul << 33, 1ul << 34}));
    for (int i = 0; i < 16; i++)
        SYS(getrlimit(i, &before[i]));
    subject_hold();
    for (int i = 0; i < 16; i++) {
        SYS(getrlimit(i, &now));
        CHECK(now.rlim_cur == before[i].rlim_cur && now.rlim_max == before[i].rlim_max,
              "limit %d is %lu, %lu, was %lu, %lu", i, (long)now.rlim_cur, (long)now.rlim_max,
              (long)before[i].rlim_cur, (long)before[i].rlim_max);
    }
    CHECK(dup2(1, 100) < 0 && errno == EBADF, "descriptor 100 can be made under a limit of 100");
    SYS(dup2(1, 99));
    subject_pass();
}
