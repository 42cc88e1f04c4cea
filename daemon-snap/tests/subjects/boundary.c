/* A service that gives up root. Variants: own_log (opened as the user, in a directory of the user), early_log (opened as root, where only
 * root may write; argv[4] is the directory), early_log_at_home (opened as root, in a directory of the user), socket (bound in a
 * directory of the user), volatile (a file, a FIFO and a link in a directory of the user on a tmpfs), large (much memory, and a child
 * that has little). */
#include "subject.h"
#include <grp.h>
#include <sys/socket.h>
#include <sys/un.h>
#define USER 65534
#define LARGE_BYTES (128L << 20)

static void become_user(void)
{
    SYS(setgroups(0, NULL));
    SYS(setresgid(USER, USER, USER));
    SYS(setresuid(USER, USER, USER));
    /* Others of the user may look into it, as into any service that was started as this user. */
    SYS(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
}

static void hold(void *unused)
{
    (void)unused;
    member_hold("small");
}

static int open_log(const char *path)
{
    return SYS(open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600));
}

static void check_log(int log)
{
    CHECK_EQ(SYS(write(log, "restored\n", 9)), 9);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    char *home = in_dir("home"), *shm_home = in_shm("home"), path[400];
    SYS(mkdir(home, 0755));
    SYS(chown(home, USER, USER));
    SYS(mkdir(shm_home, 0755));
    SYS(chown(shm_home, USER, USER));
    int log = -1, end = -1;
    pid_t child = 0;
    if (variant("early_log")) {
        snprintf(path, sizeof path, "/var/lib/fastboot-subject-%d", getpid());
        SYS(mkdir(path, 0755));
        strcat(path, "/log");
        log = open_log(path);
    } else if (variant("early_log_at_home")) {
        snprintf(path, sizeof path, "%s/log", home);
        log = open_log(path);
    }
    become_user();
    if (variant("own_log")) {
        snprintf(path, sizeof path, "%s/log", home);
        log = open_log(path);
    } else if (variant("socket")) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        snprintf(address.sun_path, sizeof address.sun_path, "%s/sock", home);
        end = SYS(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        SYS(bind(end, (struct sockaddr *)&address, sizeof address));
        SYS(listen(end, 3));
    } else if (variant("volatile")) {
        snprintf(path, sizeof path, "%s/data", shm_home);
        end = SYS(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640));
        CHECK_EQ(SYS(write(end, "content", 7)), 7);
    } else if (variant("large")) {
        child = fork_member(hold, NULL);
        await_member("small");
        char *memory = SYS(mmap(NULL, LARGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        for (long at = 0; at < LARGE_BYTES; at += 4096)
            memcpy(memory + at, &at, sizeof at);
    }
    subject_hold();
    if (log >= 0)
        check_log(log);
    if (variant("volatile")) {
        char text[8] = "";
        CHECK_EQ(SYS(pread(end, text, sizeof text, 0)), 7);
        CHECK(!strcmp(text, "content"), "the file says %s", text);
    }
    if (child)
        reap(child);
    subject_pass();
}
