/* The heap keeps its content and its end, and brk goes on from there. */
#include "subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char *blocks[100];
    for (int i = 0; i < 100; i++)
        fill(blocks[i] = malloc(2000), 2000, i);
    char *end = SYS(sbrk(0));
    subject_hold();
    CHECK_EQ((uintptr_t)sbrk(0), (uintptr_t)end);
    char *grown = SYS(sbrk(1 << 20));
    CHECK_EQ((uintptr_t)grown, (uintptr_t)end);
    check_zero(grown + 4096, (1 << 20) - 4096, "new part of the heap");
    fill(grown, 1 << 20, 500);
    check_filled(grown, 1 << 20, 500, "new part of the heap");
    SYS(sbrk(-(1 << 20)));
    CHECK_EQ((uintptr_t)sbrk(0), (uintptr_t)end);
    for (int i = 0; i < 100; i++) {
        check_filled(blocks[i], 2000, i, "heap block");
        blocks[i] = realloc(blocks[i], 9000);
        check_filled(blocks[i], 2000, i, "heap block after realloc");
    }
    for (int i = 0; i < 100; i++)
        free(blocks[i]);
    subject_pass();
}
