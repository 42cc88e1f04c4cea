/* A reservation of 1 TiB without access costs nothing and stays where it is; pages committed inside keep their content. */
#include "subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    size_t len = 1ul << 40;
    char *area = SYS(mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    char *committed = area + (len >> 1) + 12345 * 4096ul;
    SYS(mprotect(committed, 65536, PROT_READ | PROT_WRITE));
    fill(committed, 65536, 1);
    int64_t started = now_ns(CLOCK_MONOTONIC);
    subject_hold();
    CHECK(now_ns(CLOCK_MONOTONIC) - started < 60 * NS_PER_S, "the hold took a minute");
    check_filled(committed, 65536, 1, "committed part");
    SYS(mprotect(area + len - 4096, 4096, PROT_READ | PROT_WRITE));
    check_zero(area + len - 4096, 4096, "last page");
    area[len - 1] = 7;
    SYS(munmap(area, len));
    subject_pass();
}
