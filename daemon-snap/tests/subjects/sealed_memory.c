/* mseal(2): an area that nobody may unmap, move or protect otherwise. */
#include "subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char *area = SYS(mmap(NULL, 6 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    fill(area, 6 * 4096, 1);
    SYS(mprotect(area + 4096, 4096, PROT_READ));
    if (syscall(462, area + 4096, 2 * 4096, 0) < 0)
        subject_skip("no mseal");
    subject_hold();
    check_filled(area, 6 * 4096, 1, "content");
    area[2 * 4096 + 5] = 'w';
    CHECK(munmap(area + 4096, 4096) < 0 && errno == EPERM, "a sealed page can be unmapped");
    CHECK(mprotect(area + 4096, 4096, PROT_READ | PROT_WRITE) < 0 && errno == EPERM, "protection can be changed");
    CHECK(madvise(area + 4096, 4096, MADV_DONTNEED) < 0 && errno == EPERM, "a sealed read-only page can be emptied");
    SYS(mprotect(area, 4096, PROT_READ));
    SYS(munmap(area + 3 * 4096, 3 * 4096));
    subject_pass();
}
