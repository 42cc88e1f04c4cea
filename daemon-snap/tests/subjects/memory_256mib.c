/* 256 MiB of memory, all different, partly in huge pages; with a run of equal and a run of zero pages inside. */
#include "subject.h"

#define LEN (256ul << 20)
#define RUN (8ul << 20)

static uint64_t word(size_t i)
{
    size_t at = i * 8;
    if (at >= 3 * RUN && at < 4 * RUN)
        return 0;
    if (at >= 5 * RUN && at < 6 * RUN)
        return i % 512;
    return i * 0x9e3779b97f4a7c15u ^ i >> 9;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    uint64_t *area = SYS(mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    SYS(madvise(area, LEN / 2, MADV_HUGEPAGE));
    for (size_t i = 0; i < LEN / 8; i++)
        area[i] = word(i);
    subject_hold();
    for (size_t i = 0; i < LEN / 8; i++)
        CHECK(area[i] == word(i), "word %zu is 0x%lx, wanted 0x%lx", i, area[i], word(i));
    subject_pass();
}
