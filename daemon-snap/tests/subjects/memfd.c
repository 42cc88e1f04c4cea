/* memfd: name, size, content, holes, offset, seals, and a mapping that is the same memory as the descriptor. */
#include "subject.h"

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    int fd = SYS(memfd_create("a name", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    int sealed = SYS(memfd_create("sealed", MFD_ALLOW_SEALING));
    SYS(ftruncate(fd, 100 * 4096 + 123));
    char *area = SYS(mmap(NULL, 8 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 4 * 4096));
    fill(area + 4096, 4096, 1);
    SYS(pwrite(fd, "end", 3, 100 * 4096 + 120));
    SYS(lseek(fd, 777, SEEK_SET));
    SYS(write(sealed, "constant", 8));
    SYS(fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL));
    char *constant = SYS(mmap(NULL, 4096, PROT_READ, MAP_SHARED, sealed, 0));
    subject_hold();

    struct stat status;
    char bytes[16] = "";
    SYS(fstat(fd, &status));
    CHECK_EQ(status.st_size, 100 * 4096 + 123);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 777);
    check_filled(area + 4096, 4096, 1, "mapping");
    check_zero(area, 4096, "hole");
    CHECK_EQ(pread(fd, bytes, 16, 100 * 4096 + 120), 3);
    CHECK(memcmp(bytes, "end", 3) == 0, "tail is %.3s", bytes);
    area[17] = 'x';
    CHECK_EQ(pread(fd, bytes, 1, 4 * 4096 + 17), 1);
    CHECK_EQ(bytes[0], 'x');
    CHECK_EQ(fcntl(fd, F_GET_SEALS), 0);
    CHECK_EQ(fcntl(sealed, F_GET_SEALS), F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    CHECK(memcmp(constant, "constant", 8) == 0, "sealed content is %.8s", constant);
    CHECK_EQ(lseek(sealed, 0, SEEK_CUR), 8);
    CHECK(pwrite(sealed, "x", 1, 0) < 0 && errno == EPERM, "the sealed memfd can be written");
    subject_pass();
}
