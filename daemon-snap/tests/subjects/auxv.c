/* The auxiliary vector is the same to the kernel and to libc, and what it points to is there. */
#include "subject.h"
#include <elf.h>
#include <sys/auxv.h>

int main(int argc, char **argv)
{
    static char before[4096], after[4096], random[16];
    subject_begin(argc, argv);
    long len = read_file("/proc/self/auxv", before, sizeof before);
    memcpy(random, (void *)getauxval(AT_RANDOM), 16);
    subject_hold();
    CHECK_EQ(read_file("/proc/self/auxv", after, sizeof after), len);
    CHECK(memcmp(before, after, len) == 0, "auxv differs");
    CHECK(memcmp(random, (void *)getauxval(AT_RANDOM), 16) == 0, "AT_RANDOM bytes differ");
    CHECK(memcmp((void *)getauxval(AT_SYSINFO_EHDR), "\177ELF", 4) == 0, "AT_SYSINFO_EHDR points to no ELF");
    CHECK(getauxval(AT_PHDR) && ((Elf64_Phdr *)getauxval(AT_PHDR))->p_type == PT_PHDR, "AT_PHDR");
    CHECK(strcmp((char *)getauxval(AT_PLATFORM), "x86_64") == 0, "AT_PLATFORM");
    CHECK_EQ(getauxval(AT_PAGESZ), 4096);
    subject_pass();
}
