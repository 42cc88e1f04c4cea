/* The stack keeps its content and still grows on demand, by 4 MiB; a MAP_GROWSDOWN area too. */
#include "subject.h"

static uint64_t descend(int depth)
{
    volatile char frame[4096];
    for (size_t i = 0; i < sizeof frame; i += 512)
        frame[i] = depth;
    uint64_t below = depth > 0 ? descend(depth - 1) : 0;
    return below + frame[512] - (char)depth + 1;
}

int main(int argc, char **argv)
{
    uint64_t on_stack[2000];
    subject_begin(argc, argv);
    fill(on_stack, sizeof on_stack, 1);
    /* room below, then a page that grows into it */
    char *room = SYS(mmap(NULL, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    SYS(munmap(room, 1 << 20));
    char *top = SYS(mmap(room + (1 << 20) - 8192, 8192, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0));
    fill(top, 8192, 2);
    subject_hold();
    check_filled(on_stack, sizeof on_stack, 1, "array on the stack");
    CHECK_EQ(descend(1000), 1001);
    check_filled(top, 8192, 2, "area that grows down");
    for (int page = 1; page <= 4; page++)
        ((volatile char *)top)[-4096 * page] = page; /* each touches the page below the last */
    CHECK_EQ(top[-4096 * 4], 4);
    subject_pass();
}
