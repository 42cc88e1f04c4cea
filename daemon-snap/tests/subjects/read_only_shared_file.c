/* A shared mapping through a read-only descriptor cannot become writable, before or after. */
#include "subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    write_file(in_dir("data"), "0123456789", 10);
    int fd = SYS(open(in_dir("data"), O_RDONLY | O_CLOEXEC));
    char *area = SYS(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0));
    close(fd);
    subject_hold();
    CHECK(memcmp(area, "0123456789", 10) == 0, "content differs");
    CHECK(mprotect(area, 4096, PROT_READ | PROT_WRITE) < 0 && errno == EACCES, "the mapping can be made writable");
    subject_pass();
}
