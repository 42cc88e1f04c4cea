/* Variants wipeonfork, droppable: such an area must not be the same in two lives, so it comes back zeroed, with its flag. */
#include "subject.h"
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char *area, *neighbour;
    if (variant("droppable")) {
        area = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);
        if (area == MAP_FAILED)
            subject_skip("no MAP_DROPPABLE before Linux 6.11");
    } else {
        area = SYS(mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        SYS(madvise(area, 4 * 4096, MADV_WIPEONFORK));
    }
    neighbour = SYS(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    fill(area, 4 * 4096, 1);
    fill(neighbour, 4096, 2);
    subject_hold();
    if (subject_was_restored)
        check_zero(area, 4 * 4096, "area that must come back empty");
    else
        check_filled(area, 4 * 4096, 1, "area");
    check_filled(neighbour, 4096, 2, "ordinary memory");
    fill(area, 4 * 4096, 3);
    check_filled(area, 4 * 4096, 3, "area written again");
    pid_t pid = SYS(fork());
    if (pid == 0) {
        check_zero(area, 4 * 4096, "area in a new child");
        _exit(0);
    }
    reap(pid);
    subject_pass();
}
