/* Private memory of parent and children after a fork in which each went its own way: written, given back, unmapped, mapped
 * anew, of a file, read-only, without access, forked before and after. */
#include "subject.h"

#define PAGE 4096ul
static char *common, *file, *guarded, *lost, *wiped;
static int number;

static char *map(size_t pages, int fd)
{
    return SYS(mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0));
}

static void diverge(int who)
{
    number = who;
    common[who * PAGE] = who;                             /* written */
    SYS(madvise(common + (16 + who) * PAGE, PAGE, MADV_DONTNEED)); /* given back: zero */
    file[who * PAGE] = who;
    SYS(madvise(file + (16 + who) * PAGE, PAGE, MADV_DONTNEED));   /* the file's again */
    SYS(mprotect(guarded, 4 * PAGE, who % 2 ? PROT_NONE : PROT_READ));
    SYS(munmap(lost + who * PAGE, PAGE));
    if (who == 2) /* something else in the same place */
        SYS(mmap(lost + who * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
}

static bool is_mapped(const char *at)
{
    unsigned char resident;
    return mincore((void *)at, PAGE, &resident) == 0;
}

static void check(int who)
{
    CHECK_EQ(number, who);
    for (int page = 0; page < 32; page++) {
        char *at = common + page * PAGE;
        CHECK_EQ(at[0], page == who ? who : page == 16 + who ? 0 : 70 + page);
        CHECK_EQ(at[1], page == 16 + who ? 0 : 'c');
        at = file + page * PAGE;
        CHECK_EQ(at[0], page == who ? who : page == 16 + who ? 'f' : 'o');
        CHECK_EQ(at[1], 'f');
        if (page < 16) {
            bool there = page != who || who == 2;
            CHECK(is_mapped(lost + page * PAGE) == there, "process %d, page %d of what was unmapped", who, page);
            if (there)
                CHECK_EQ(lost[page * PAGE], page == who ? 0 : 'l');
        }
    }
    if (who % 2)
        SYS(mprotect(guarded, 4 * PAGE, PROT_READ));
    for (int page = 0; page < 4; page++)
        CHECK_EQ(guarded[page * PAGE + 9], 'g');
    check_zero(wiped, PAGE, "page that is wiped on fork");
    /* and they go on going their own ways */
    memset(common, who, 32 * PAGE);
    nap_ms(30);
    for (size_t i = 0; i < 32 * PAGE; i++)
        CHECK(common[i] == who, "process %d sees a write of process %d", who, common[i]);
}

static void child(void *argument)
{
    int who = (int)(long)argument;
    diverge(who);
    pid_t grandchild = 0;
    if (who == 3) {
        grandchild = SYS(fork());
        if (grandchild == 0) {
            member_hold("grandchild");
            check(3);
            _exit(0);
        }
        await_member("grandchild");
    }
    char name[8];
    snprintf(name, sizeof name, "%d", who);
    member_hold(name);
    check(who);
    if (grandchild)
        reap(grandchild);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fd = SYS(open(in_dir("data"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    static char bytes[32 * PAGE];
    memset(bytes, 'f', sizeof bytes);
    SYS(write(fd, bytes, sizeof bytes));
    common = map(32, -1);
    file = map(32, fd);
    guarded = map(4, -1);
    lost = map(16, -1);
    wiped = map(1, -1);
    for (int page = 0; page < 32; page++) {
        common[page * PAGE] = 70 + page;
        common[page * PAGE + 1] = 'c';
        file[page * PAGE] = 'o';
        if (page < 16)
            lost[page * PAGE] = 'l';
        if (page < 4)
            guarded[page * PAGE + 9] = 'g';
    }
    SYS(madvise(wiped, PAGE, MADV_WIPEONFORK));
    pid_t pids[4];
    for (long who = 1; who <= 4; who++) {
        pids[who - 1] = fork_member(child, (void *)who);
        char name[8];
        snprintf(name, sizeof name, "%ld", who);
        await_member(name);
    }
    diverge(5); /* after they have been forked */
    subject_hold();
    check(5);
    for (int i = 0; i < 4; i++)
        reap(pids[i]);
    subject_pass();
}
