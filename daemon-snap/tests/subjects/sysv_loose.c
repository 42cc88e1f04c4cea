/* A System V segment that its maker has filled and detached: only its id leads to it. */
#include "subject.h"
#include <sys/shm.h>

#define LEN (3 * 4096 + 50)

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    key_t key = 0x49000000 + getpid();
    int id = SYS(shmget(key, LEN, IPC_CREAT | IPC_EXCL | 0604));
    char *area = SYS(shmat(id, NULL, 0));
    fill(area + 4096, 2 * 4096, 5);
    strcpy(area + LEN - 10, "the end");
    SYS(shmdt(area));
    subject_hold();
    CHECK_EQ(SYS(shmget(key, LEN, 0)), id);
    struct shmid_ds info;
    /* the restorer is attached a moment longer */
    await_that(shmctl(id, IPC_STAT, &info) == 0 && info.shm_nattch == 0);
    CHECK_EQ(info.shm_segsz, LEN);
    CHECK_EQ(info.shm_perm.mode & 0777, 0604);
    CHECK_EQ(info.shm_cpid, getpid());
    area = SYS(shmat(id, NULL, 0));
    check_zero(area, 4096, "page that nobody wrote");
    check_filled(area + 4096, 2 * 4096, 5, "content");
    CHECK(strcmp(area + LEN - 10, "the end") == 0, "the end reads %.8s", area + LEN - 10);
    SYS(shmctl(id, IPC_RMID, NULL));
    SYS(shmdt(area));
    subject_pass();
}
