/* POSIX message queues: names, limits, messages by priority, owner and mode; opened twice, shared over a fork, removed, waited for. */
#include "subject.h"
#include <mqueue.h>

static char name[64], other_name[64];
static mqd_t sender, receiver, waited, gone, gone_too;

static mqd_t make(const char *queue, long messages)
{
    struct mq_attr attr = {.mq_maxmsg = messages, .mq_msgsize = 100};
    return SYS(mq_open(queue, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600, &attr));
}

static void take(mqd_t queue, const char *text, unsigned priority)
{
    char bytes[100];
    unsigned found = 99;
    CHECK_EQ(SYS(mq_receive(queue, bytes, sizeof bytes, &found)), strlen(text));
    CHECK(memcmp(bytes, text, strlen(text)) == 0, "%.20s in place of %s", bytes, text);
    CHECK_EQ(found, priority);
}

static atomic_int waiter;

static void *waits(void *unused)
{
    atomic_store(&waiter, gettid());
    take(waited, "at last", 3);
    return unused;
}

static void other(void *unused)
{
    (void)unused;
    member_hold("other");
    SYS(mq_send(sender, "from the child", 14, 4));
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    snprintf(name, sizeof name, "/fastboot-%d", getpid());
    SYS(mq_close(make(name, 7)));
    sender = SYS(mq_open(name, O_WRONLY | O_CLOEXEC));
    receiver = SYS(mq_open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    SYS(fchown(sender, 1234, 4321));
    SYS(fchmod(sender, 0620));
    SYS(mq_send(sender, "low", 3, 1));
    SYS(mq_send(sender, "high", 4, 30000));
    SYS(mq_send(sender, "", 0, 2));
    SYS(mq_send(sender, "low too", 7, 1));
    snprintf(other_name, sizeof other_name, "/fastboot-%d-free", getpid());
    gone_too = make(other_name, 1);
    SYS(mq_unlink(other_name));
    SYS(mq_send(gone_too, "too", 3, 8));
    snprintf(other_name, sizeof other_name, "/fastboot-%d-waited", getpid());
    gone = make(other_name, 2);
    SYS(mq_unlink(other_name));
    SYS(mq_send(gone, "kept", 4, 0));
    waited = make(other_name, 3);
    pthread_t thread;
    PTHREAD(pthread_create(&thread, NULL, waits, NULL));
    await_that(atomic_load(&waiter) != 0);
    await_blocked(waiter, SYS_mq_timedreceive);
    pid_t pid = fork_member(other, NULL);
    await_member("other");
    subject_hold();
    reap(pid);
    struct mq_attr attr;
    SYS(mq_getattr(receiver, &attr));
    CHECK_EQ(attr.mq_flags, O_NONBLOCK);
    CHECK_EQ(attr.mq_maxmsg, 7);
    CHECK_EQ(attr.mq_msgsize, 100);
    CHECK_EQ(attr.mq_curmsgs, 5);
    struct stat info;
    SYS(fstat(receiver, &info));
    CHECK_EQ(info.st_uid, 1234);
    CHECK_EQ(info.st_gid, 4321);
    CHECK_EQ(info.st_mode, S_IFREG | 0620);
    take(receiver, "high", 30000);
    take(receiver, "from the child", 4);
    take(receiver, "", 2);
    take(receiver, "low", 1);
    take(receiver, "low too", 1);
    CHECK(mq_receive(receiver, (char[100]){0}, 100, NULL) == -1 && errno == EAGAIN, "there is more");
    take(gone, "kept", 0);
    take(gone_too, "too", 8);
    /* the name is that of the other one */
    mqd_t again = SYS(mq_open(other_name, O_WRONLY | O_CLOEXEC));
    SYS(mq_send(again, "at last", 7, 3));
    PTHREAD(pthread_join(thread, NULL));
    SYS(mq_unlink(name));
    SYS(mq_unlink(other_name));
    subject_pass();
}
