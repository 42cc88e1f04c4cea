/* Thirty thousand mappings that cannot merge, some with content. */
#include "subject.h"

#define AREAS 30000

/* How many mappings lie in a range, and a sum over their bounds and protections. */
static size_t mappings(char *from, char *to, unsigned long *sum)
{
    static char text[8 << 20];
    long len = read_file("/proc/self/maps", text, sizeof text);
    CHECK(len < (long)sizeof text - 1, "the list of mappings is too long");
    size_t count = 0;
    *sum = 0;
    for (char *line = text; *line; line = strchr(line, '\n') + 1) {
        char *start = (char *)strtoul(line, NULL, 16);
        if (start >= from && start < to) {
            *sum += common_hash(line, strchr(line, 'p') - line) * ++count;
        }
    }
    return count;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char limit[32];
    if (read_file("/proc/sys/vm/max_map_count", limit, sizeof limit) > 0 && atol(limit) < AREAS + 1000)
        subject_skip("vm.max_map_count is too low");
    char *room = SYS(mmap(NULL, AREAS * 4096ul, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    for (int i = 0; i < AREAS; i += 2) {
        SYS(mprotect(room + i * 4096ul, 4096, PROT_READ | PROT_WRITE));
        if (i % 10 == 0)
            *(int *)(room + i * 4096ul) = i + 1;
    }
    unsigned long before, after;
    CHECK_EQ(mappings(room, room + AREAS * 4096ul, &before), AREAS);
    subject_hold();
    CHECK_EQ(mappings(room, room + AREAS * 4096ul, &after), AREAS);
    CHECK(before == after, "bounds or protections have changed");
    for (int i = 0; i < AREAS; i += 2)
        CHECK_EQ(*(int *)(room + i * 4096ul), i % 10 == 0 ? i + 1 : 0);
    subject_pass();
}
