/* What only prctl(2) and arch_prctl(2) set, per thread: variants tsc, cpuid, memory_failure, io_flusher, speculation. A second thread
 * keeps what it was born with. */
#include "subject.h"
#include <setjmp.h>

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#define PR_GET_IO_FLUSHER 58
#endif
#define GET_CPUID 0x1011
#define SET_CPUID 0x1012
#define STORE_BYPASS 0
#define SPEC_PRCTL 1
#define SPEC_DISABLE 4

static __thread sigjmp_buf back;
static long other_before;

static void on_fault(int signal)
{
    (void)signal;
    siglongjmp(back, 1);
}

static bool tsc_faults(void)
{
    unsigned low, high;
    if (sigsetjmp(back, 1))
        return true;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return false;
}

static bool cpuid_faults(void)
{
    unsigned a = 0, b, c = 0, d;
    if (sigsetjmp(back, 1))
        return true;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return false;
}

/* What the calling thread has. */
static long setting(void)
{
    if (variant("tsc"))
        return tsc_faults();
    if (variant("cpuid"))
        return cpuid_faults();
    if (variant("memory_failure"))
        return SYS(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0));
    if (variant("io_flusher"))
        return SYS(prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0));
    return SYS(prctl(PR_GET_SPECULATION_CTRL, STORE_BYPASS, 0, 0, 0));
}

static void change(void)
{
    if (variant("tsc"))
        SYS(prctl(PR_SET_TSC, PR_TSC_SIGSEGV));
    else if (variant("cpuid") && syscall(SYS_arch_prctl, SET_CPUID, 0) < 0)
        subject_skip_for_processor("it cannot forbid cpuid");
    else if (variant("memory_failure"))
        SYS(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0));
    else if (variant("io_flusher"))
        SYS(prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0));
    else if (variant("speculation")) {
        if (!(setting() & SPEC_PRCTL))
            subject_skip_for_processor("it has no speculation to forbid");
        SYS(prctl(PR_SET_SPECULATION_CTRL, STORE_BYPASS, SPEC_DISABLE, 0, 0));
    }
}

static void *other(void *unused)
{
    other_before = setting();
    thread_hold();
    CHECK_EQ(setting(), other_before);
    return unused;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sigaction action = {.sa_handler = on_fault, .sa_flags = SA_NODEFER};
    SYS(sigaction(SIGSEGV, &action, NULL));
    if (variant("io_flusher") && prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0) < 0)
        subject_skip_for_capability("CAP_SYS_RESOURCE (or a kernel before 5.6)");
    pthread_t thread = start_thread(other, NULL);
    await_threads(1);
    change();
    long before = setting();
    CHECK(before != other_before, "nothing is set");
    subject_hold();
    CHECK_EQ(setting(), before);
    release_threads();
    PTHREAD(pthread_join(thread, NULL));
    subject_pass();
}
