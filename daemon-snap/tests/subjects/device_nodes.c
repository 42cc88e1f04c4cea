/* /dev/null, zero, full, random and urandom; the node behind each descriptor is the same device. */
#include "subject.h"
#include <sys/sysmacros.h>

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static const struct {
        const char *path;
        int flags, minor;
    } nodes[] = {{"/dev/null", O_RDWR, 3}, {"/dev/zero", O_RDWR, 5}, {"/dev/full", O_WRONLY, 7},
                 {"/dev/random", O_RDONLY | O_NONBLOCK, 8}, {"/dev/urandom", O_RDONLY, 9}};
    int fds[5];
    for (int i = 0; i < 5; i++)
        fds[i] = SYS(open(nodes[i].path, nodes[i].flags | O_CLOEXEC));
    char *zero = SYS(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fds[1], 0));
    fill(zero + 4096, 4096, 4);
    subject_hold();
    char bytes[64], again[64] = "";
    for (int i = 0; i < 5; i++) {
        struct stat status;
        SYS(fstat(fds[i], &status));
        CHECK(S_ISCHR(status.st_mode) && major(status.st_rdev) == 1, "%s became something else", nodes[i].path);
        CHECK_EQ(minor(status.st_rdev), nodes[i].minor);
    }
    CHECK_EQ(read(fds[0], bytes, 64), 0);
    CHECK_EQ(read(fds[1], bytes, 64), 64);
    check_zero(bytes, 64, "/dev/zero");
    CHECK(write(fds[2], "x", 1) < 0 && errno == ENOSPC, "/dev/full takes bytes");
    CHECK_EQ(read(fds[3], again, 64), 64);
    CHECK_EQ(read(fds[4], bytes, 64), 64);
    CHECK(memcmp(bytes, again, 64) != 0, "/dev/urandom repeats itself");
    check_zero(zero, 4096, "private mapping of /dev/zero");
    check_filled(zero + 4096, 4096, 4, "written page of that mapping");
    subject_pass();
}
