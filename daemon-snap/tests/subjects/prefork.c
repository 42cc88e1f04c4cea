/* A server that prepares 24 MiB and forks workers: what they share stays shared, so that all together need no more memory
 * after a restore than before. */
#include "subject.h"

#define LEN (24ul << 20)
#define WORKERS 6
static char *data, *touched;
/* Proportional set sizes in KiB by index, before and after. */
static struct {
    atomic_long before[WORKERS + 2], after[WORKERS + 2];
    atomic_int arrived, checked;
} *shared;

static long pss_kib(void)
{
    static char text[4096];
    read_file("/proc/self/smaps_rollup", text, sizeof text);
    char *at = strstr(text, "\nPss:");
    CHECK(at != NULL, "no Pss in %s", text);
    return atol(at + 5);
}

static void check_data(int index)
{
    for (size_t page = 0; page < LEN / 4096; page += 7) {
        char *at = data + page * 4096;
        /* every worker has written the pages of its own number */
        bool own = page % 64 == (size_t)index;
        CHECK(*(long *)(at + 64) == (own ? index : -1), "worker %d, page %zu: %ld", index, page, *(long *)(at + 64));
        CHECK(*(uint64_t *)(at + 128) == pattern(9, page), "page %zu has other content", page);
    }
}

static void measure(atomic_long *into, int count)
{
    /* All look at the same moment, so that nobody's copy is counted before another's is made. */
    atomic_fetch_add(&shared->arrived, 1);
    await_that(atomic_load(&shared->arrived) >= count);
    *into = pss_kib();
    atomic_fetch_add(&shared->checked, 1);
    await_that(atomic_load(&shared->checked) >= count);
}

static void work(void *argument)
{
    int index = (int)(long)argument;
    for (size_t page = index; page < LEN / 4096; page += 64)
        *(long *)(data + page * 4096 + 64) = index;
    if (variant("generations") && index == 1) {
        /* a worker that forks one more after it has written */
        pid_t pid = SYS(fork());
        if (pid == 0) {
            index = WORKERS + 1;
            memset(touched, 5, 1 << 20);
            char name[16];
            measure(&shared->before[index], WORKERS + 2);
            snprintf(name, sizeof name, "%d", index);
            member_hold(name);
            check_data(1);
            CHECK(touched[0] == 5 && touched[(1 << 20) + 1] == 4, "the grandchild's own pages are wrong");
            measure(&shared->after[index], 2 * (WORKERS + 2));
            _exit(0);
        }
    }
    char name[16];
    int count = WORKERS + 1 + variant("generations");
    measure(&shared->before[index], count);
    snprintf(name, sizeof name, "%d", index);
    member_hold(name);
    check_data(index);
    CHECK(touched[0] == 4, "the worker's view of what the parent has not written is wrong");
    measure(&shared->after[index], 2 * count);
    if (variant("generations") && index == 1)
        SYS(wait(NULL));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    shared = SYS(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    data = SYS(mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    touched = SYS(mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    memset(touched, 4, 4 << 20);
    for (size_t page = 0; page < LEN / 4096; page++) {
        fill(data + page * 4096, 4096, page);
        *(long *)(data + page * 4096 + 64) = -1;
        *(uint64_t *)(data + page * 4096 + 128) = pattern(9, page);
    }
    SYS(mprotect(data + LEN / 2, 4096, PROT_READ)); /* divides the area */
    SYS(mprotect(data + LEN / 2, 4096, PROT_READ | PROT_WRITE));
    int extra = variant("generations");
    pid_t workers[WORKERS];
    for (long i = 0; i < WORKERS; i++)
        workers[i] = fork_member(work, (void *)(i + 1));
    measure(&shared->before[0], WORKERS + 1 + extra);
    for (int i = 1; i <= WORKERS + extra; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", i);
        await_member(name);
    }
    subject_hold();
    for (size_t page = 0; page < LEN / 4096; page++)
        CHECK(*(long *)(data + page * 4096 + 64) == -1, "a worker's write came to the parent in page %zu", page);
    measure(&shared->after[0], 2 * (WORKERS + 1 + extra));
    long before = 0, after = 0;
    for (int i = 0; i <= WORKERS + extra; i++) {
        before += shared->before[i];
        after += shared->after[i];
    }
    for (int i = 0; i < WORKERS; i++)
        reap(workers[i]);
    CHECK(after * 10 <= before * 11, "all together have %ld KiB, before it were %ld", after, before);
    subject_pass();
}
