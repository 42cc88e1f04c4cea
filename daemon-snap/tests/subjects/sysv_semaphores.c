/* System V semaphores: id, key, owner, mode, values, who used each last, what processes undo when they end; threads that wait. */
#include "subject.h"
#include <sys/ipc.h>
#include <sys/sem.h>

#define COUNT 5
/* Somebody whom no other process is: until a set is used, its user alone tells whose it is. */
#define OWNER 3459

static int id;

static void change(int number, int by, int flags)
{
    SYS(semop(id, &(struct sembuf){number, by, IPC_NOWAIT | flags}, 1));
}

static int value(int number)
{
    return SYS(semctl(id, number, GETVAL));
}

static int user(int number)
{
    return SYS(semctl(id, number, GETPID));
}

static void make(key_t key)
{
    SYS(setresuid(-1, OWNER, -1));
    id = SYS(semget(key, COUNT, IPC_CREAT | IPC_EXCL | 0640));
    SYS(setresuid(-1, 0, -1));
}

static void other(void *unused)
{
    (void)unused;
    change(1, 7, 0);
    if (variant("undo")) {
        change(2, 12, 0);
        change(2, -5, SEM_UNDO);
        change(3, 4, SEM_UNDO);
    }
    member_hold("other");
    await_that(access(in_dir("seen"), F_OK) == 0);
}

static void with_values(void)
{
    key_t key = 0x48000000 + getpid();
    make(key);
    change(0, 32767, 0);
    change(0, -1, 0);
    if (variant("undo")) {
        change(4, 100, 0);
        change(4, -30, SEM_UNDO);
    }
    pid_t pid = fork_member(other, NULL);
    await_member("other");
    struct semid_ds info;
    SYS(semctl(id, 0, IPC_STAT, &info));
    info.sem_perm.uid = 1234;
    info.sem_perm.gid = 4321;
    info.sem_perm.mode = 0620;
    SYS(semctl(id, 0, IPC_SET, &info));
    subject_hold();
    CHECK_EQ(SYS(semget(key, COUNT, 0)), id);
    SYS(semctl(id, 0, IPC_STAT, &info));
    CHECK_EQ(info.sem_nsems, COUNT);
    CHECK_EQ(info.sem_perm.uid, 1234);
    CHECK_EQ(info.sem_perm.gid, 4321);
    CHECK_EQ(info.sem_perm.cuid, OWNER);
    CHECK_EQ(info.sem_perm.mode & 0777, 0620);
    bool undo = variant("undo");
    int values[COUNT] = {32766, 7, undo ? 7 : 0, undo ? 4 : 0, undo ? 70 : 0};
    int users[COUNT] = {getpid(), pid, undo ? pid : 0, undo ? pid : 0, undo ? getpid() : 0};
    for (int number = 0; number < COUNT; number++) {
        CHECK_EQ(value(number), values[number]);
        CHECK_EQ(user(number), users[number]);
    }
    write_file(in_dir("seen"), "", 0);
    reap(pid);
    CHECK_EQ(value(1), 7);
    CHECK_EQ(value(2), undo ? 12 : 0);
    CHECK_EQ(value(3), 0);
    if (!undo)
        return;
    /* what the root itself would undo is seen by a process that outlives it */
    int ends[2];
    SYS(pipe(ends));
    pid_t root = SYS(fork());
    if (root == 0) {
        char byte;
        close(ends[1]);
        if (read(ends[0], &byte, 1) != 0)
            _exit(1);
        int left = semctl(id, 4, GETVAL);
        semctl(id, 0, IPC_RMID);
        if (left != 100)
            subject_fail(__FILE__, __LINE__, "the root has undone to %d", left);
        subject_pass();
    }
    _exit(0);
}

static void *takes(void *unused)
{
    SYS(semop(id, &(struct sembuf){2, -1, SEM_UNDO}, 1));
    return unused;
}

static void *takes_in_time(void *unused)
{
    struct timespec limit = {.tv_sec = 3600};
    SYS(semtimedop(id, &(struct sembuf){3, 0, 0}, 1, &limit));
    return unused;
}

static void with_threads_that_wait(void)
{
    make(IPC_PRIVATE);
    change(3, 1, 0);
    pthread_t taker, zero;
    PTHREAD(pthread_create(&taker, NULL, takes, NULL));
    PTHREAD(pthread_create(&zero, NULL, takes_in_time, NULL));
    await_that(SYS(semctl(id, 2, GETNCNT)) == 1 && SYS(semctl(id, 3, GETZCNT)) == 1);
    subject_hold();
    await_that(SYS(semctl(id, 2, GETNCNT)) == 1 && SYS(semctl(id, 3, GETZCNT)) == 1);
    change(2, 1, 0);
    change(3, -1, 0);
    PTHREAD(pthread_join(taker, NULL));
    PTHREAD(pthread_join(zero, NULL));
    CHECK_EQ(value(2), 0);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (variant("waiting"))
        with_threads_that_wait();
    else
        with_values();
    SYS(semctl(id, 0, IPC_RMID));
    subject_pass();
}
