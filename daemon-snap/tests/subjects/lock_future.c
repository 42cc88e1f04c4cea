/* mlockall(MCL_FUTURE): what is mapped after the restore is locked like what was mapped before it. */
#include "subject.h"

#ifndef MCL_ONFAULT
#define MCL_ONFAULT 4
#endif

/* The VmFlags of the area that starts here. */
static bool has(const void *start, const char *flag)
{
    char key[40], word[8];
    snprintf(key, sizeof key, "\n%lx-", (unsigned long)start);
    snprintf(word, sizeof word, " %s", flag);
    read_file("/proc/self/smaps", common_scratch, sizeof common_scratch);
    char *at = strstr(common_scratch, key);
    CHECK(at != NULL, "no mapping starts at %p", start);
    at = strstr(at, "VmFlags:");
    at[strcspn(at, "\n")] = 0;
    return strstr(at, word) != NULL;
}

static char *fresh(void)
{
    char *room = SYS(mmap(NULL, 3 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    return SYS(mmap(room + 4096, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    bool on_fault = variant("on_fault");
    char *before = fresh();
    SYS(mlockall(MCL_FUTURE | (on_fault ? MCL_ONFAULT : 0)));
    if (variant("current"))
        SYS(mlockall(MCL_CURRENT | MCL_FUTURE));
    char *between = fresh();
    between[0] = 'b';
    subject_hold();
    CHECK_EQ(has(before, "lo"), variant("current"));
    CHECK(has(between, "lo"), "what was mapped before is not locked");
    CHECK_EQ(has(between, "lf"), on_fault);
    CHECK_EQ(between[0], 'b');
    char *after = fresh();
    CHECK(has(after, "lo"), "what is mapped now is not locked");
    CHECK_EQ(has(after, "lf"), on_fault);
    SYS(munlockall());
    CHECK(!has(fresh(), "lo"), "munlockall does nothing");
    subject_pass();
}
