/* The first SysV segment of a namespace has the id 0, which is its inode number too. Made by a process that has ended since. */
#include "subject.h"
#include <sys/shm.h>

static char *area;

static void other(void *unused)
{
    (void)unused;
    member_hold("other");
    await_that(area[10] == 'p');
    area[11] = 'c';
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pid_t maker = SYS(fork());
    if (maker == 0) {
        /* whoever else makes a segment in this moment gets the number */
        for (int tries = 0; tries < 50; tries++) {
            write_file("/proc/sys/kernel/shm_next_id", "0", 1);
            int id = shmget(IPC_PRIVATE, 8192, IPC_CREAT | 0600);
            if (id == 0)
                _exit(0);
            shmctl(id, IPC_RMID, NULL);
        }
        _exit(1);
    }
    int status;
    SYS(waitpid(maker, &status, 0));
    if (status != 0)
        subject_skip("the id 0 is taken");
    area = SYS(shmat(0, NULL, 0));
    strcpy(area, "segment");
    pid_t pid = fork_member(other, NULL);
    await_member("other");
    subject_hold();
    CHECK(strcmp(area, "segment") == 0, "the content is %.8s", area);
    area[10] = 'p';
    await_that(area[11] == 'c');
    reap(pid);
    struct shmid_ds info;
    SYS(shmctl(0, IPC_STAT, &info));
    CHECK_EQ(info.shm_segsz, 8192);
    SYS(shmctl(0, IPC_RMID, NULL));
    SYS(shmdt(area));
    subject_pass();
}
