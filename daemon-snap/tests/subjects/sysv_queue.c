/* System V message queues: id, key, owner, mode, length, messages with types and order, who used them last; never used, waited for. */
#include "subject.h"
#include <sys/ipc.h>
#include <sys/msg.h>

/* Somebody whom no other process is: until a queue is used, its user alone tells whose it is. */
#define OWNER 3458

struct message {
    long type;
    char text[200];
};

static int id;

static void put(long type, const char *text)
{
    struct message message = {.type = type};
    strcpy(message.text, text);
    SYS(msgsnd(id, &message, strlen(text), IPC_NOWAIT));
}

static void take(long type, const char *text)
{
    struct message message = {0};
    CHECK_EQ(SYS(msgrcv(id, &message, sizeof message.text, type, IPC_NOWAIT)), strlen(text));
    CHECK(strncmp(message.text, text, strlen(text)) == 0, "type %ld reads %.20s", type, message.text);
}

static void sender(void *unused)
{
    (void)unused;
    put(9, "gone before");
    await_that(access(in_dir("taken"), F_OK) == 0);
    put(3, "three");
    put(1, "one");
    put(7, "");
    put(3, "three again");
    put(2, "two");
    member_hold("sender");
}

static struct msqid_ds stat_of(int queue)
{
    struct msqid_ds info;
    SYS(msgctl(queue, IPC_STAT, &info));
    return info;
}

static int make(key_t key)
{
    SYS(setresuid(-1, OWNER, -1));
    int made = SYS(msgget(key, IPC_CREAT | IPC_EXCL | 0640));
    SYS(setresuid(-1, 0, -1));
    return made;
}

static void with_messages(void)
{
    key_t key = 0x47000000 + getpid();
    id = make(key);
    pid_t pid = fork_member(sender, NULL);
    struct message message;
    SYS(msgrcv(id, &message, sizeof message.text, 9, 0));
    write_file(in_dir("taken"), "", 0);
    await_member("sender");
    struct msqid_ds info = stat_of(id);
    info.msg_perm.uid = 1234;
    info.msg_perm.gid = 4321;
    info.msg_perm.mode = 0620;
    info.msg_qbytes = 10; /* less than what lies in it */
    SYS(msgctl(id, IPC_SET, &info));
    subject_hold();
    info = stat_of(id);
    CHECK_EQ(SYS(msgget(key, 0)), id);
    CHECK_EQ(info.msg_perm.uid, 1234);
    CHECK_EQ(info.msg_perm.gid, 4321);
    CHECK_EQ(info.msg_perm.cuid, OWNER);
    CHECK_EQ(info.msg_perm.mode & 0777, 0620);
    CHECK_EQ(info.msg_qbytes, 10);
    CHECK_EQ(info.msg_qnum, 5);
    CHECK_EQ(info.msg_lspid, pid);
    CHECK_EQ(info.msg_lrpid, getpid());
    CHECK(msgsnd(id, &message, 1, IPC_NOWAIT) == -1 && errno == EAGAIN, "there is room");
    take(2, "two");
    take(-3, "one");
    take(0, "three");
    take(0, "");
    take(3, "three again");
    CHECK(msgrcv(id, &message, 1, 0, IPC_NOWAIT) == -1 && errno == ENOMSG, "there is more");
    reap(pid);
}

static void *receives(void *unused)
{
    struct message message;
    CHECK_EQ(SYS(msgrcv(id, &message, sizeof message.text, 5, 0)), 4);
    return unused;
}

static void *sends(void *unused)
{
    struct message message = {.type = 6};
    SYS(msgsnd(id, &message, sizeof message.text, 0));
    return unused;
}

static bool waits_in(pid_t tid, long number)
{
    char path[64], text[64] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", tid);
    int fd = SYS(open(path, O_RDONLY | O_CLOEXEC));
    SYS(read(fd, text, sizeof text - 1));
    close(fd);
    return strtol(text, NULL, 10) == number;
}

static _Atomic pid_t waiter;

static void *waits(void *call)
{
    atomic_store(&waiter, thread_id());
    return ((void *(*)(void *))call)(NULL);
}

static pthread_t start_waiter(void *(*call)(void *), long number)
{
    pthread_t thread;
    atomic_store(&waiter, 0);
    PTHREAD(pthread_create(&thread, NULL, waits, (void *)call));
    await_that(atomic_load(&waiter) != 0 && waits_in(atomic_load(&waiter), number));
    return thread;
}

static void with_threads_that_wait(void)
{
    id = make(IPC_PRIVATE);
    struct msqid_ds info = stat_of(id);
    info.msg_qbytes = 250;
    SYS(msgctl(id, IPC_SET, &info));
    pthread_t receiver = start_waiter(receives, SYS_msgrcv);
    pthread_t sender = 0;
    if (variant("full")) {
        struct message message = {.type = 6};
        SYS(msgsnd(id, &message, 200, IPC_NOWAIT));
        sender = start_waiter(sends, SYS_msgsnd);
    }
    subject_hold();
    put(5, "five");
    PTHREAD(pthread_join(receiver, NULL));
    if (sender) {
        struct message message;
        for (int taken = 0; taken < 2; taken++)
            CHECK_EQ(SYS(msgrcv(id, &message, sizeof message.text, 6, 0)), 200);
        PTHREAD(pthread_join(sender, NULL));
    }
}

static void that_nobody_has_used(void)
{
    SYS(setresuid(-1, OWNER - 1, -1));
    id = SYS(msgget(IPC_PRIVATE, IPC_CREAT | 0600));
    subject_hold();
    CHECK_EQ(stat_of(id).msg_lspid, 0);
    put(1, "first");
    take(0, "first");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (variant("messages"))
        with_messages();
    else if (variant("unused"))
        that_nobody_has_used();
    else
        with_threads_that_wait();
    SYS(msgctl(id, IPC_RMID, NULL));
    subject_pass();
}
