/* Advice and locks on memory (VmFlags of smaps) are kept: what forks, dumps, is huge, merged, locked, read ahead. */
#include "subject.h"

static const struct {
    const char *flag;
    int advice;
} wanted[] = {{"dc", MADV_DONTFORK}, {"dd", MADV_DONTDUMP}, {"hg", MADV_HUGEPAGE}, {"nh", MADV_NOHUGEPAGE},
              {"sr", MADV_SEQUENTIAL}, {"rr", MADV_RANDOM}, {"mg", MADV_MERGEABLE}, {"wf", MADV_WIPEONFORK}};
#define AREAS (int)(sizeof wanted / sizeof wanted[0])
static char smaps[1 << 20];

/* The VmFlags line of the mapping that starts here. */
static const char *flags_of(const void *start)
{
    char key[40];
    static char line[256];
    snprintf(key, sizeof key, "\n%lx-", (unsigned long)start);
    read_file("/proc/self/smaps", smaps, sizeof smaps);
    char *at = strstr(smaps, key);
    CHECK(at != NULL, "no mapping starts at %p", start);
    at = strstr(at, "VmFlags:");
    snprintf(line, sizeof line, "%.*s", (int)strcspn(at, "\n"), at);
    return line;
}

static bool has(const void *start, const char *flag)
{
    char word[8];
    snprintf(word, sizeof word, " %s ", flag);
    return strstr(flags_of(start), word) != NULL;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char *areas[AREAS];
    bool taken[AREAS];
    char *room = SYS(mmap(NULL, 64 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    for (int i = 0; i < AREAS; i++) {
        areas[i] = room + (i * 2 + 1) * (2 << 20);
        SYS(mmap(areas[i], 2 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
        taken[i] = madvise(areas[i], 2 << 20, wanted[i].advice) == 0; /* KSM may be absent */
        fill(areas[i], 4096, i);
    }
    char *locked = SYS(mmap(NULL, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    SYS(mlock(locked, 4 * 4096));
    fill(locked, 4 * 4096, 50);
    char *on_fault = SYS(mmap(NULL, 4 * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    SYS(mlock2(on_fault, 4 * 4096, MLOCK_ONFAULT));
    subject_hold();
    for (int i = 0; i < AREAS; i++) {
        CHECK(has(areas[i], wanted[i].flag) == taken[i], "area with advice %s now has %s", wanted[i].flag,
              flags_of(areas[i]));
        if (wanted[i].advice != MADV_WIPEONFORK)
            check_filled(areas[i], 4096, i, "area with advice");
    }
    CHECK(has(locked, "lo"), "the locked area has %s", flags_of(locked));
    CHECK(!has(locked + 4 * 4096, "lo"), "the rest of it is locked too");
    check_filled(locked, 4 * 4096, 50, "locked area");
    CHECK(has(on_fault, "lo") && has(on_fault, "lf"), "the area locked on fault has %s", flags_of(on_fault));
    CHECK(has(room, "nr"), "MAP_NORESERVE was lost: %s", flags_of(room));
    pid_t pid = SYS(fork());
    if (pid == 0) {
        unsigned char resident;
        CHECK(mincore(areas[0], 4096, &resident) < 0 && errno == ENOMEM, "MADV_DONTFORK area was forked");
        _exit(0);
    }
    reap(pid);
    subject_pass();
}
