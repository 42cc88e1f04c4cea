/* The vDSO is where it was and works: its clocks agree with the kernel's and none runs backwards. */
#include "subject.h"
#include <sched.h>
#include <sys/auxv.h>
#include <sys/time.h>

static const clockid_t clocks[] = {CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME,
                                   CLOCK_MONOTONIC_RAW, CLOCK_TAI};
#define CLOCKS (int)(sizeof clocks / sizeof clocks[0])

static int64_t kernel_ns(clockid_t clock)
{
    struct timespec now;
    SYS(syscall(SYS_clock_gettime, clock, &now));
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    unsigned long vdso = getauxval(AT_SYSINFO_EHDR);
    int64_t before[CLOCKS];
    for (int i = 0; i < CLOCKS; i++)
        before[i] = now_ns(clocks[i]);
    subject_hold();
    CHECK(memcmp((void *)vdso, "\177ELF", 4) == 0, "no vDSO at its recorded address");
    for (int i = 0; i < CLOCKS; i++) {
        int64_t first = kernel_ns(clocks[i]), fast = now_ns(clocks[i]), last = kernel_ns(clocks[i]);
        CHECK(first >= before[i], "clock %d went back by %ld ns", clocks[i], (long)(before[i] - first));
        CHECK(fast >= first && fast <= last, "clock %d: vDSO says %ld, kernel %ld to %ld", clocks[i], (long)fast,
              (long)first, (long)last);
        CHECK(fast - before[i] < 120 * NS_PER_S, "clock %d jumped %ld ns ahead", clocks[i], (long)(fast - before[i]));
    }
    struct timeval day;
    gettimeofday(&day, NULL);
    CHECK(labs(day.tv_sec - kernel_ns(CLOCK_REALTIME) / NS_PER_S) <= 1, "gettimeofday differs");
    CHECK(labs(time(NULL) - day.tv_sec) <= 1, "time differs");
    unsigned cpu = sched_getcpu();
    CHECK(cpu < 4096, "getcpu gives %u", cpu);
    int64_t sum = 0, start = kernel_ns(CLOCK_MONOTONIC);
    for (int i = 0; i < 100000; i++)
        sum += now_ns(CLOCK_MONOTONIC) & 1;
    int64_t each = (kernel_ns(CLOCK_MONOTONIC) - start) / 100000;
    CHECK(each < 20000 && sum >= 0, "a clock reading takes %ld ns", (long)each);
    subject_pass();
}
