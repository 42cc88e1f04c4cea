/* File locks and who holds them: of processes (fcntl), of descriptions (flock, F_OFD_SETLK). */
#include "subject.h"
#include <sys/file.h>

static int fd, again, reader;


/* What stands in the way of this lock, as another process sees it. */
static void expect_in_another(int file, short wanted, long start, long len, short type, pid_t pid)
{
    pid_t child = SYS(fork());
    if (child == 0) {
        struct flock lock = {.l_type = wanted, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
        SYS(fcntl(file, F_GETLK, &lock));
        CHECK(lock.l_type == type, "bytes %ld+%ld have lock %d, wanted %d", start, len, lock.l_type, type);
        if (type != F_UNLCK)
            CHECK_EQ(lock.l_pid, pid);
        _exit(0);
    }
    reap(child);
}

static void take(int file, int command, short type, long start, long len)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    SYS(fcntl(file, command, &lock));
}

static void second_process(void *unused)
{
    (void)unused;
    take(fd, F_SETLK, F_WRLCK, 1000, 10);
    member_hold("second");
    /* The parent's locks are in the way of this process, its own are not. */
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 1000, .l_len = 10};
    SYS(fcntl(fd, F_GETLK, &lock));
    CHECK_EQ(lock.l_type, F_UNLCK);
    lock = (struct flock){.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 3, .l_len = 1};
    SYS(fcntl(fd, F_GETLK, &lock));
    CHECK(lock.l_type == F_WRLCK && lock.l_pid == getppid(), "byte 3 is not locked by the parent");
    publish("second-checked", "");
    while (access(in_dir("second-may-end"), F_OK) != 0)
        nap_ms(1);
}

static void posix(void)
{
    reader = SYS(open(in_dir("other"), O_RDONLY | O_CREAT | O_CLOEXEC, 0600));
    int duplicate = SYS(fcntl(fd, F_DUPFD_CLOEXEC, 50));
    take(fd, F_SETLK, F_WRLCK, 3, 5);
    take(duplicate, F_SETLK, F_RDLCK, 2000, 0);
    take(again, F_SETLK, F_WRLCK, 50, 1);
    take(reader, F_SETLK, F_RDLCK, 0, 7);
    pid_t second = fork_member(second_process, NULL);
    await_member("second");
    char *area = NULL;
    if (variant("mapped")) {
        SYS(ftruncate(fd, 3 * 4096));
        area = SYS(mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
        area[4096] = 'm';
    }
    subject_hold();
    if (area)
        CHECK_EQ(area[4096], 'm');
    expect_in_another(fd, F_WRLCK, 3, 5, F_WRLCK, getpid());
    expect_in_another(fd, F_WRLCK, 8, 42, F_UNLCK, 0);
    expect_in_another(fd, F_WRLCK, 50, 1, F_WRLCK, getpid());
    expect_in_another(fd, F_WRLCK, 1 << 20, 1, F_RDLCK, getpid());
    expect_in_another(fd, F_RDLCK, 1 << 20, 1, F_UNLCK, 0);
    expect_in_another(fd, F_RDLCK, 1005, 1, F_WRLCK, second);
    int writer = SYS(open(in_dir("other"), O_RDWR | O_CLOEXEC));
    pid_t child = SYS(fork());
    if (child == 0) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        SYS(fcntl(writer, F_GETLK, &lock));
        CHECK(lock.l_type == F_RDLCK && lock.l_start == 0 && lock.l_len == 7, "the read lock is %d %ld+%ld", lock.l_type,
              (long)lock.l_start, (long)lock.l_len);
        _exit(0);
    }
    reap(child);
    while (access(in_dir("second-checked"), F_OK) != 0)
        nap_ms(1);
    /* Closing any descriptor of a file gives up this process's locks on it, and only these. */
    close(duplicate);
    expect_in_another(fd, F_WRLCK, 0, 200, F_UNLCK, 0);
    expect_in_another(fd, F_RDLCK, 1005, 1, F_WRLCK, second);
    publish("second-may-end", "");
    reap(second);
}

static bool is_free(void)
{
    int fresh = SYS(open(in_dir("file"), O_RDWR | O_CLOEXEC));
    bool got = flock(fresh, LOCK_EX | LOCK_NB) == 0;
    CHECK(got || errno == EWOULDBLOCK, "flock: %s", strerror(errno));
    close(fresh);
    return got;
}

static void shares_description(void *unused)
{
    (void)unused;
    member_hold("sharer");
    while (access(in_dir("parent-closed"), F_OK) != 0)
        nap_ms(1);
    CHECK(!is_free(), "the lock went with the parent's descriptor");
    SYS(flock(fd, LOCK_UN));
    CHECK(is_free(), "the lock did not go");
}

/* Who took it, as /proc/locks tells. */
static void check_taker(const char *class, pid_t pid)
{
    char key[64], *at = common_scratch;
    struct stat status;
    SYS(fstat(fd, &status));
    snprintf(key, sizeof key, ":%lu ", (unsigned long)status.st_ino);
    read_file("/proc/locks", common_scratch, sizeof common_scratch);
    for (char *line = strtok(at, "\n"); line; line = strtok(NULL, "\n"))
        if (strstr(line, key) && strstr(line, class)) {
            int number, taker;
            char word[3][16];
            CHECK_EQ(sscanf(line, "%d: %15s %15s %15s %d", &number, word[0], word[1], word[2], &taker), 5);
            CHECK_EQ(taker, pid);
            return;
        }
    CHECK(false, "no %s in /proc/locks", class);
}

static void whole_file(void)
{
    SYS(flock(fd, LOCK_EX));
    SYS(flock(reader = SYS(open(in_dir("other"), O_RDONLY | O_CREAT | O_CLOEXEC, 0600)), LOCK_SH));
    pid_t sharer = fork_member(shares_description, NULL);
    await_member("sharer");
    subject_hold();
    CHECK(!is_free(), "the file is not locked");
    check_taker("FLOCK", getpid());
    int other = SYS(open(in_dir("other"), O_RDONLY | O_CLOEXEC));
    CHECK(flock(other, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK, "the shared lock is gone");
    SYS(flock(other, LOCK_SH | LOCK_NB));
    close(fd);
    publish("parent-closed", "");
    reap(sharer);
}

static void of_description(void)
{
    take(fd, F_OFD_SETLK, F_WRLCK, 10, 10);
    take(again, F_OFD_SETLK, F_RDLCK, 100, 0);
    pid_t sharer = fork_member(shares_description, NULL);
    (void)sharer;
    await_member("sharer");
    subject_hold();
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 15, .l_len = 1};
    SYS(fcntl(again, F_OFD_GETLK, &lock));
    CHECK(lock.l_type == F_WRLCK && lock.l_start == 10 && lock.l_len == 10 && lock.l_pid == -1, "lock %d %ld+%ld of %d",
          lock.l_type, (long)lock.l_start, (long)lock.l_len, lock.l_pid);
    lock = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 1 << 20};
    SYS(fcntl(fd, F_OFD_GETLK, &lock));
    CHECK(lock.l_type == F_RDLCK && lock.l_start == 100 && lock.l_len == 0, "the read lock is gone");
    SYS(kill(sharer, SIGKILL));
    SYS(waitpid(sharer, NULL, 0));
    /* The parent still has the description. */
    lock = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 15, .l_len = 1};
    SYS(fcntl(again, F_OFD_GETLK, &lock));
    CHECK_EQ(lock.l_type, F_WRLCK);
    close(fd);
    lock = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 15, .l_len = 1};
    SYS(fcntl(again, F_OFD_GETLK, &lock));
    CHECK_EQ(lock.l_type, F_UNLCK);
}

/* As the JVM does with its hsperfdata file: the descriptor is closed, the mapping keeps description and lock. */
static void kept_by_mapping(int how)
{
    SYS(ftruncate(fd, 4096));
    SYS(flock(fd, LOCK_EX));
    char *area = SYS(mmap(NULL, 4096, PROT_READ | PROT_WRITE, how, fd, 0));
    area[7] = 'l';
    close(fd);
    close(again);
    fd = -1;
    CHECK(!is_free(), "the mapping does not keep the lock");
    subject_hold();
    CHECK(!is_free(), "the lock is gone");
    CHECK_EQ(area[7], 'l');
    fd = SYS(open(in_dir("file"), O_RDWR | O_CLOEXEC));
    check_taker("FLOCK", getpid());
    SYS(munmap(area, 4096));
    CHECK(is_free(), "the lock outlives the mapping");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);

    fd = SYS(open(in_dir("file"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    again = SYS(open(in_dir("file"), O_RDWR | O_CLOEXEC));
    if (variant("posix") || variant("mapped"))
        posix();
    else if (variant("flock"))
        whole_file();
    else if (variant("kept_by_mapping"))
        kept_by_mapping(MAP_SHARED);
    else if (variant("kept_by_private_mapping"))
        kept_by_mapping(MAP_PRIVATE);
    else
        of_description();
    subject_pass();
}
