/* A private mapping of a file: pages that were written are the process's own, the others are the file's. */
#include "subject.h"

#define PAGE 4096ul

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static char content[16 * PAGE], on_disk[16 * PAGE + 1];
    fill(content, sizeof content, 1);
    write_file(in_dir("data"), content, sizeof content);
    int fd = SYS(open(in_dir("data"), O_RDONLY | O_CLOEXEC));
    char *area = SYS(mmap(NULL, 12 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 4 * PAGE));
    char *constant = SYS(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
    char *beyond = SYS(mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE, fd, 15 * PAGE));
    close(fd);
    fill(area + 3 * PAGE, 2 * PAGE, 2);
    area[7 * PAGE + 9] = 99;
    fill(constant + PAGE, PAGE, 3);
    SYS(mprotect(constant, 4 * PAGE, PROT_READ));
    subject_hold();

    for (int page = 0; page < 12; page++) {
        if (page == 3)
            check_filled(area + 3 * PAGE, 2 * PAGE, 2, "own pages");
        else if (page == 7)
            CHECK(area[7 * PAGE + 9] == 99 && memcmp(area + 7 * PAGE + 10, content + 11 * PAGE + 10, PAGE - 10) == 0,
                  "the page with one changed byte differs");
        else if (page != 4)
            CHECK(memcmp(area + page * PAGE, content + (page + 4) * PAGE, PAGE) == 0, "clean page %d differs", page);
    }
    CHECK(memcmp(constant, content, PAGE) == 0, "clean read-only page differs");
    check_filled(constant + PAGE, PAGE, 3, "own read-only page");
    CHECK(memcmp(beyond, content + 15 * PAGE, PAGE) == 0, "last page of the file differs");
    read_file(in_dir("data"), on_disk, sizeof on_disk);
    CHECK(memcmp(on_disk, content, sizeof content) == 0, "the file on disk was written to");
    SYS(madvise(area, 12 * PAGE, MADV_DONTNEED)); /* own pages gone, the file shows again */
    CHECK(memcmp(area, content + 4 * PAGE, 12 * PAGE) == 0, "after MADV_DONTNEED the file does not show");
    subject_pass();
}
