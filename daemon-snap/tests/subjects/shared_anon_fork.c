/* Shared anonymous memory of parent and child is one memory afterwards too, also where it is mapped twice. */
#include "subject.h"

#define LEN (32 * 4096ul)
static char *shared, *also;
static atomic_int *steps;

static void child(void *unused)
{
    (void)unused;
    member_hold("child");
    check_filled(shared + 4096, 4096, 2, "child's view");
    await_that(atomic_load(steps) == 1);
    check_filled(shared + 8192, 4096, 5, "written by the parent after the restore");
    fill(shared + 12288, 4096, 6);
    atomic_store(steps, 2);
    await_that(atomic_load(steps) == 3);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    shared = SYS(mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    steps = SYS(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    fill(shared + 4096, 4096, 2);
    /* old size 0: a second mapping of the same memory */
    also = SYS(mremap(shared, 0, LEN, MREMAP_MAYMOVE));
    pid_t pid = fork_member(child, NULL);
    await_member("child");
    subject_hold();
    check_zero(shared, 4096, "first page");
    check_filled(shared + 4096, 4096, 2, "parent's view");
    fill(also + 8192, 4096, 5);
    check_filled(shared + 8192, 4096, 5, "the second mapping of the same memory");
    atomic_store(steps, 1);
    await_that(atomic_load(steps) == 2);
    check_filled(shared + 12288, 4096, 6, "written by the child after the restore");
    atomic_store(steps, 3);
    reap(pid);
    subject_pass();
}
