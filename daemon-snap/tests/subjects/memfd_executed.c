/* Programs in memfds: executed before, executed after; who could not be, still cannot. */
#include "subject.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8
#endif

static int copy(unsigned flags)
{
    static char bytes[1 << 16];
    int fd = memfd_create("program", flags), from = SYS(open("/bin/true", O_RDONLY | O_CLOEXEC));
    if (fd < 0)
        return -1;
    ssize_t got;
    while ((got = read(from, bytes, sizeof bytes)) > 0)
        SYS(write(fd, bytes, got));
    close(from);
    return fd;
}

/* 0, or the errno of execveat(2). */
static int execute(int fd)
{
    pid_t pid = SYS(fork());
    if (pid == 0) {
        char *arguments[] = {"program", NULL}, *environment[] = {NULL};
        syscall(SYS_execveat, fd, "", arguments, environment, AT_EMPTY_PATH);
        _exit(errno);
    }
    int status;
    SYS(waitpid(pid, &status, 0));
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    enum { PLAIN, SEALED, READ_ONLY, FORBIDDEN, MAPPED, WRITTEN, ALL };
    int fds[ALL], before[ALL];
    char path[64];
    fds[PLAIN] = copy(MFD_CLOEXEC);
    fds[SEALED] = copy(MFD_CLOEXEC | MFD_ALLOW_SEALING);
    SYS(fcntl(fds[SEALED], F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK));
    int writable = copy(MFD_CLOEXEC);
    snprintf(path, sizeof path, "/proc/self/fd/%d", writable);
    fds[READ_ONLY] = SYS(open(path, O_RDONLY | O_CLOEXEC));
    close(writable);
    fds[FORBIDDEN] = copy(MFD_CLOEXEC | MFD_NOEXEC_SEAL);
    fds[MAPPED] = copy(MFD_CLOEXEC);
    char *area = SYS(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fds[MAPPED], 0));
    /* opened once more for writing: it cannot be executed while that is open */
    fds[WRITTEN] = copy(MFD_CLOEXEC);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fds[WRITTEN]);
    SYS(open(path, O_RDWR | O_CLOEXEC));
    for (int i = 0; i < ALL; i++)
        before[i] = fds[i] < 0 ? -1 : execute(fds[i]);
    CHECK_EQ(before[PLAIN], 0);
    CHECK_EQ(before[MAPPED], 0);
    CHECK_EQ(before[WRITTEN], ETXTBSY);
    subject_hold();
    for (int i = 0; i < ALL; i++)
        if (fds[i] >= 0)
            CHECK(execute(fds[i]) == before[i], "program %d gives %d, gave %d", i, execute(fds[i]), before[i]);
    CHECK_EQ(area[1], 'E');
    subject_pass();
}
