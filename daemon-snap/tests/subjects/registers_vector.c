/* Variants sse, avx, avx512: vector registers held in a spinning loop, with mxcsr, the x87 control word and stack. */
#include "subject.h"

static volatile uint32_t running = 1;
static unsigned char wanted[32 * 64] __attribute__((aligned(64)));
static unsigned char held[32 * 64] __attribute__((aligned(64)));
static uint64_t wanted_masks[8], held_masks[8];

#define SPIN "1: pause\n movl running(%%rip), %%ecx\n test %%ecx, %%ecx\n jnz 1b\n"
#define EACH_8(x, base) x(base, 0) x(base, 1) x(base, 2) x(base, 3) x(base, 4) x(base, 5) x(base, 6) x(base, 7)
#define LOW_16(x) EACH_8(x, ) x(, 8) x(, 9) x(1, 0) x(1, 1) x(1, 2) x(1, 3) x(1, 4) x(1, 5)
#define HIGH_16(x)                                                                                                   \
    x(1, 6) x(1, 7) x(1, 8) x(1, 9) x(2, 0) x(2, 1) x(2, 2) x(2, 3) x(2, 4) x(2, 5) x(2, 6) x(2, 7) x(2, 8) x(2, 9)  \
        x(3, 0) x(3, 1)

#define LOAD(op, reg, ten, one, len) op " " #ten #one "*" #len "(%%rsi), %%" reg #ten #one "\n"
#define STORE(op, reg, ten, one, len) op " %%" reg #ten #one ", " #ten #one "*" #len "(%%rdi)\n"
#define LOAD_XMM(ten, one) LOAD("movaps", "xmm", ten, one, 16)
#define STORE_XMM(ten, one) STORE("movaps", "xmm", ten, one, 16)
#define LOAD_YMM(ten, one) LOAD("vmovaps", "ymm", ten, one, 32)
#define STORE_YMM(ten, one) STORE("vmovaps", "ymm", ten, one, 32)
#define LOAD_ZMM(ten, one) LOAD("vmovdqa64", "zmm", ten, one, 64)
#define STORE_ZMM(ten, one) STORE("vmovdqa64", "zmm", ten, one, 64)
#define LOAD_MASK(ten, one) LOAD("kmovw", "k", ten, one, 8)
#define STORE_MASK(ten, one) STORE("kmovw", "k", ten, one, 8)

static void *spin_sse(void *unused)
{
    uint32_t mxcsr = 0x1f80 | 0x6000 | 0x8000, mxcsr_after = 0; /* round to zero, flush to zero */
    uint16_t control = 0x0f7f, control_after = 0;               /* 64 bits of mantissa, round to zero */
    double deep = 0, top = 0;
    atomic_fetch_add(&subject_arrived, 1);
    __asm__ volatile("ldmxcsr %4\n fldcw %5\n fldpi\n fldl2e\n" LOW_16(LOAD_XMM) SPIN LOW_16(STORE_XMM)
                     "fstpl %0\n fstpl %1\n stmxcsr %2\n fnstcw %3\n"
                     : "=m"(top), "=m"(deep), "=m"(mxcsr_after), "=m"(control_after)
                     : "m"(mxcsr), "m"(control), "S"(wanted), "D"(held)
                     : "rcx", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
                       "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    uint32_t usual = 0x1f80;
    __asm__ volatile("ldmxcsr %0\n fninit" : : "m"(usual));
    CHECK_EQ(mxcsr_after & 0xffc0, mxcsr);
    CHECK_EQ(control_after, control);
    CHECK(deep > 3.14159265 && deep < 3.14159266, "st(1) is %f, wanted pi", deep);
    CHECK(top > 1.44269504 && top < 1.44269505, "st(0) is %f, wanted log2(e)", top);
    return unused;
}

static void *spin_avx(void *unused)
{
    atomic_fetch_add(&subject_arrived, 1);
    __asm__ volatile(LOW_16(LOAD_YMM) SPIN LOW_16(STORE_YMM) "vzeroupper\n"
                     :
                     : "S"(wanted), "D"(held)
                     : "rcx", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
                       "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    return unused;
}

static void __attribute__((target("avx512f"))) * spin_avx512(void *unused)
{
    atomic_fetch_add(&subject_arrived, 1);
    __asm__ volatile("push %%rsi\n push %%rdi\n mov %2, %%rsi\n" EACH_8(LOAD_MASK, ) "pop %%rdi\n pop %%rsi\n"
                     LOW_16(LOAD_ZMM) HIGH_16(LOAD_ZMM) SPIN LOW_16(STORE_ZMM) HIGH_16(STORE_ZMM)
                     "mov %3, %%rdi\n" EACH_8(STORE_MASK, ) "vzeroupper\n"
                     :
                     : "S"(wanted), "D"(held), "r"(wanted_masks), "r"(held_masks)
                     : "rcx", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
                       "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17", "xmm18",
                       "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27", "xmm28",
                       "xmm29", "xmm30", "xmm31", "k1", "k2", "k3", "k4", "k5", "k6", "k7");
    return unused;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    void *(*spin)(void *) = spin_sse;
    size_t len = 16 * 16;
    if (variant("avx")) {
        if (!__builtin_cpu_supports("avx"))
            subject_skip_for_processor("it has no AVX");
        spin = spin_avx, len = 16 * 32;
    } else if (variant("avx512")) {
        if (!__builtin_cpu_supports("avx512f"))
            subject_skip_for_processor("it has no AVX-512");
        spin = spin_avx512, len = 32 * 64;
    }
    fill(wanted, sizeof wanted, 11);
    for (int i = 0; i < 8; i++)
        wanted_masks[i] = pattern(12, i) & 0xffff;
    pthread_t thread = start_thread(spin, NULL);
    await_threads(1);
    nap_ms(5);
    subject_hold();
    nap_ms(5);
    running = 0;
    PTHREAD(pthread_join(thread, NULL));
    check_filled(held, len, 11, "vector registers");
    for (int i = 0; variant("avx512") && i < 8; i++)
        CHECK_EQ(held_masks[i], wanted_masks[i]);
    subject_pass();
}
