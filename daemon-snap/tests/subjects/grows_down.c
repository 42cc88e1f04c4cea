/* A MAP_GROWSDOWN area of the program's own goes on growing, also a stack that has grown after a fork. */
#include "subject.h"

#define PAGE 4096ul

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char *room = SYS(mmap(NULL, 8 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    char *top = room + (8 << 20) - PAGE;
    SYS(munmap(room, (8 << 20) - PAGE)); /* room to grow into */
    char *area = SYS(mmap(top - 4 * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0));
    fill(area, 4 * PAGE, 7);
    for (volatile char *at = area; at > area - 16 * PAGE; at -= PAGE)
        at[-1] = 'g'; /* grows page by page */
    subject_hold();
    check_filled(area, 4 * PAGE, 7, "the first pages");
    for (char *at = area; at > area - 16 * PAGE; at -= PAGE)
        CHECK_EQ(at[-1], 'g');
    for (volatile char *at = area - 16 * PAGE; at > area - 64 * PAGE; at -= PAGE)
        at[-1] = 'h';
    CHECK_EQ(area[-40 * (long)PAGE - 1], 'h');
    subject_pass();
}
