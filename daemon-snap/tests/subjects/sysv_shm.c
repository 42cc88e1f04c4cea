/* System V shared memory: id, key, size, owner, mode, content, attached in two processes; also when it was removed already. */
#include "subject.h"
#include <sys/shm.h>

#define LEN (5 * 4096 + 100)
static char *area, *reader;
static int id;

static void other(void *unused)
{
    (void)unused;
    SYS(shmdt(reader));
    member_hold("other");
    await_that(area[17] == 'p');
    area[18] = 'c';
}

static long attached(void)
{
    struct shmid_ds info;
    SYS(shmctl(id, IPC_STAT, &info));
    return info.shm_nattch;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    bool removed = variant("removed");
    key_t key = removed ? IPC_PRIVATE : 0x46000000 + getpid();
    id = SYS(shmget(key, LEN, IPC_CREAT | IPC_EXCL | 0640));
    struct shmid_ds info;
    SYS(shmctl(id, IPC_STAT, &info));
    info.shm_perm.uid = 1234;
    info.shm_perm.gid = 4321;
    SYS(shmctl(id, IPC_SET, &info));
    area = SYS(shmat(id, NULL, 0));
    reader = SYS(shmat(id, NULL, SHM_RDONLY));
    char *silent = SYS(shmat(id, NULL, 0));
    SYS(mprotect(silent, LEN, PROT_NONE));
    if (removed)
        SYS(shmctl(id, IPC_RMID, NULL));
    fill(area + 4096, 2 * 4096, 3);
    strcpy(area + LEN - 10, "the end");
    pid_t pid = fork_member(other, NULL);
    await_member("other");
    subject_hold();
    check_zero(area, 4096, "page that nobody wrote");
    check_filled(area + 4096, 2 * 4096, 3, "content");
    CHECK(strcmp(reader + LEN - 10, "the end") == 0, "the end reads %.8s", reader + LEN - 10);
    area[17] = 'p';
    await_that(reader[18] == 'c');
    reap(pid);
    SYS(shmctl(id, IPC_STAT, &info));
    CHECK_EQ(info.shm_segsz, LEN);
    CHECK_EQ(info.shm_perm.uid, 1234);
    CHECK_EQ(info.shm_perm.gid, 4321);
    CHECK_EQ(info.shm_perm.cuid, 0);
    CHECK_EQ(info.shm_perm.mode & 0777, 0640);
    CHECK_EQ(!!(info.shm_perm.mode & SHM_DEST), removed);
    /* the restorer is attached a moment longer */
    await_that(attached() == 3);
    SYS(mprotect(silent, LEN, PROT_READ));
    CHECK_EQ(silent[17], 'p');
    if (!removed) {
        CHECK_EQ(SYS(shmget(key, 0, 0)), id);
        SYS(shmctl(id, IPC_RMID, NULL));
    }
    SYS(shmdt(silent));
    SYS(shmdt(reader));
    SYS(shmdt(area));
    CHECK(shmat(id, NULL, 0) == (void *)-1, "the segment outlives the last who had it");
    subject_pass();
}
