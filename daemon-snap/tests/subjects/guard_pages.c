/* Guard pages inside an area: touching one is a fault, its neighbours keep their content. */
#include "subject.h"
#include <setjmp.h>

#define MADV_GUARD_INSTALL_ 102
#define MADV_GUARD_REMOVE_ 103
#define PAGE 4096ul
static sigjmp_buf back;

static void on_fault(int signal)
{
    (void)signal;
    siglongjmp(back, 1);
}

static bool faults(volatile char *at)
{
    if (sigsetjmp(back, 1))
        return true;
    (void)*at;
    return false;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    struct sigaction action = {.sa_handler = on_fault};
    SYS(sigaction(SIGSEGV, &action, NULL));
    char *area = SYS(mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (madvise(area, PAGE, MADV_GUARD_INSTALL_) < 0)
        subject_skip("no guard pages");
    fill(area + PAGE, 40 * PAGE, 1);
    SYS(madvise(area + 10 * PAGE, 3 * PAGE, MADV_GUARD_INSTALL_));
    SYS(madvise(area + 50 * PAGE, PAGE, MADV_GUARD_INSTALL_));
    char *untouched = SYS(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    SYS(madvise(untouched + PAGE, PAGE, MADV_GUARD_INSTALL_));
    char *shared = SYS(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    bool in_shared = madvise(shared + PAGE, PAGE, MADV_GUARD_INSTALL_) == 0; /* since Linux 6.15 */
    shared[0] = 's';
    SYS(mprotect(area + 20 * PAGE, PAGE, PROT_READ)); /* divides the area */
    subject_hold();
    for (int page = 0; page < 64; page++) {
        bool guarded = page == 0 || (page >= 10 && page < 13) || page == 50;
        CHECK(faults(area + page * PAGE) == guarded, "page %d %s", page, guarded ? "can be read" : "faults");
    }
    for (int page = 0; page < 4; page++) {
        CHECK(faults(untouched + page * PAGE) == (page == 1), "untouched page %d", page);
        CHECK(faults(shared + page * PAGE) == (page == 1 && in_shared), "shared page %d", page);
    }
    CHECK_EQ(shared[0], 's');
    for (size_t word = 0; word < 40 * PAGE / 8; word++)
        if (word / 512 < 9 || word / 512 >= 12)
            CHECK_EQ(((uint64_t *)(area + PAGE))[word], pattern(1, word));
    SYS(madvise(area + 10 * PAGE, 3 * PAGE, MADV_GUARD_REMOVE_));
    check_zero(area + 10 * PAGE, 3 * PAGE, "pages that were guards");
    subject_pass();
}
