/* A memfd mapped twice: writable here, executable there, and read-only through a descriptor of its own; closed to later writers. */
#include "subject.h"

#define F_SEAL_FUTURE_WRITE_ 0x10
#define PAGE 4096ul

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fd = SYS(memfd_create("code", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    SYS(ftruncate(fd, 16 * PAGE));
    unsigned char *writable = SYS(mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    unsigned char *code = SYS(mmap(NULL, 8 * PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 8 * PAGE));
    unsigned char *copy = SYS(mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 8 * PAGE));
    const unsigned char seven[] = {0xb8, 7, 0, 0, 0, 0xc3}, eight[] = {0xb8, 8, 0, 0, 0, 0xc3};
    memcpy(writable + 8 * PAGE, seven, sizeof seven);
    memcpy(copy + PAGE, "own", 3);
    bool sealed = variant("future_write");
    if (sealed)
        SYS(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE_ | F_SEAL_SHRINK | F_SEAL_SEAL));
    subject_hold();
    CHECK_EQ(((int (*)(void))code)(), 7);
    memcpy(writable + 8 * PAGE, eight, sizeof eight);
    CHECK_EQ(((int (*)(void))code)(), 8);
    CHECK(memcmp(copy + PAGE, "own", 3) == 0, "the private copy is lost");
    CHECK(writable[9 * PAGE] == 0, "the private copy came into the memfd");
    int seals = SYS(fcntl(fd, F_GET_SEALS));
    CHECK_EQ(seals, sealed ? F_SEAL_FUTURE_WRITE_ | F_SEAL_SHRINK | F_SEAL_SEAL : 0);
    void *later = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK_EQ(later == MAP_FAILED, sealed);
    CHECK_EQ(pwrite(fd, "x", 1, 0) < 0, sealed);
    writable[3] = 'w';
    char byte;
    CHECK_EQ(pread(fd, &byte, 1, 3), 1);
    CHECK_EQ(byte, 'w');
    subject_pass();
}
