/* Private anonymous memory of every protection, sparse and dense, and what MADV_DONTNEED gives afterwards. */
#include "subject.h"

#define PAGE 4096ul

static char *map(size_t len, int prot)
{
    return SYS(mmap(NULL, len, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char *dense = map(64 * PAGE, PROT_READ | PROT_WRITE);
    char *hidden = map(16 * PAGE, PROT_READ | PROT_WRITE);
    char *constant = map(16 * PAGE, PROT_READ | PROT_WRITE);
    char *code = map(PAGE, PROT_READ | PROT_WRITE);
    char *jit = map(2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    char *sparse = map(4096 * PAGE, PROT_READ | PROT_WRITE);
    char *split = map(9 * PAGE, PROT_READ | PROT_WRITE);
    static const unsigned char returns_42[] = {0xb8, 42, 0, 0, 0, 0xc3}; /* mov $42, %eax; ret */
    fill(dense, 64 * PAGE, 1);
    fill(hidden, 16 * PAGE, 2);
    fill(constant, 16 * PAGE, 3);
    memcpy(code, returns_42, sizeof returns_42);
    memcpy(jit + PAGE, returns_42, sizeof returns_42);
    for (int i = 0; i < 4096; i += 97)
        fill(sparse + i * PAGE, PAGE, 1000 + i);
    for (int i = 1; i < 4096; i += 97)
        (void)*(volatile char *)(sparse + i * PAGE); /* zero page */
    fill(split, 9 * PAGE, 4);
    SYS(mprotect(hidden, 16 * PAGE, PROT_NONE));
    SYS(mprotect(constant, 16 * PAGE, PROT_READ));
    SYS(mprotect(code, PAGE, PROT_READ | PROT_EXEC));
    SYS(mprotect(split + 3 * PAGE, PAGE, PROT_NONE));
    SYS(munmap(split + 6 * PAGE, PAGE));
    subject_hold();

    check_filled(dense, 64 * PAGE, 1, "dense area");
    SYS(mprotect(hidden, 16 * PAGE, PROT_READ));
    check_filled(hidden, 16 * PAGE, 2, "area without access");
    check_filled(constant, 16 * PAGE, 3, "read-only area");
    CHECK_EQ(((int (*)(void))code)(), 42);
    CHECK_EQ(((int (*)(void))(jit + PAGE))(), 42);
    jit[PAGE + 1] = 43;
    CHECK_EQ(((int (*)(void))(jit + PAGE))(), 43);
    for (int i = 0; i < 4096; i++)
        if (i % 97 == 0)
            check_filled(sparse + i * PAGE, PAGE, 1000 + i, "sparse area");
        else
            check_zero(sparse + i * PAGE, 64, "hole of the sparse area");
    SYS(mprotect(split + 3 * PAGE, PAGE, PROT_READ));
    check_filled(split, 6 * PAGE, 4, "split area");
    for (size_t i = 0; i < 2 * PAGE / 8; i++)
        CHECK_EQ(((uint64_t *)(split + 7 * PAGE))[i], pattern(4, 7 * PAGE / 8 + i));
    unsigned char resident;
    CHECK(mincore(split + 6 * PAGE, PAGE, &resident) < 0 && errno == ENOMEM, "the unmapped page is mapped");
    SYS(madvise(dense, 64 * PAGE, MADV_DONTNEED)); /* must not bring anything back */
    check_zero(dense, 64 * PAGE, "dense area after MADV_DONTNEED");
    dense[5] = 1;
    subject_pass();
}
