/* Two thousand mappings of alternating protection, every third with a page of content. */
#include "subject.h"

#define AREAS 2000

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static const int prots[] = {PROT_READ | PROT_WRITE, PROT_READ, PROT_NONE, PROT_READ | PROT_EXEC};
    char *room = SYS(mmap(NULL, AREAS * 8192ul, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (int i = 0; i < AREAS; i++) {
        if (i % 3 == 0)
            fill(room + i * 8192ul + 4096, 4096, i);
        SYS(mprotect(room + i * 8192ul, 8192, prots[i % 4]));
    }
    subject_hold();
    SYS(mprotect(room, AREAS * 8192ul, PROT_READ));
    for (int i = 0; i < AREAS; i++) {
        check_zero(room + i * 8192ul, 4096, "first page of an area");
        if (i % 3 == 0)
            check_filled(room + i * 8192ul + 4096, 4096, i, "second page of an area");
        else
            check_zero(room + i * 8192ul + 4096, 4096, "second page of an area");
    }
    subject_pass();
}
