/* PR_SET_MEMORY_MERGE: all memory of the process may be merged, that which is mapped later too; what was taken out stays out. */
#include "subject.h"

static bool mergeable(const void *start)
{
    char key[40];
    snprintf(key, sizeof key, "\n%lx-", (unsigned long)start);
    read_file("/proc/self/smaps", common_scratch, sizeof common_scratch);
    char *at = strstr(common_scratch, key);
    CHECK(at != NULL, "no mapping starts at %p", start);
    at = strstr(at, "VmFlags:");
    at[strcspn(at, "\n")] = 0;
    return strstr(at, " mg") != NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (prctl(67, 1, 0, 0, 0) < 0)
        subject_skip("no merging of all memory");
    char *room = SYS(mmap(NULL, 8 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    SYS(mprotect(room + 4096, 4096, PROT_READ | PROT_WRITE));
    SYS(mprotect(room + 3 * 4096, 4096, PROT_READ | PROT_WRITE));
    SYS(madvise(room + 3 * 4096, 4096, MADV_UNMERGEABLE));
    room[4096] = room[3 * 4096] = 'm';
    subject_hold();
    CHECK_EQ(prctl(68, 0, 0, 0, 0), 1);
    CHECK(mergeable(room + 4096), "memory is not mergeable any more");
    CHECK(!mergeable(room + 3 * 4096), "memory that was taken out is mergeable");
    char *fresh = SYS(mmap(room + 5 * 4096, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    CHECK(mergeable(fresh), "what is mapped now is not mergeable");
    subject_pass();
}
