/* inotify: watch numbers (with a gap), masks, and events for what happens afterwards, none for what did not. */
#include "subject.h"
#include <sys/inotify.h>

static int fd;

/* Reads one event and checks number, mask bits and name. */
static void expect(int wd, uint32_t mask, const char *name)
{
    static char buffer[4096] __attribute__((aligned(8)));
    static ssize_t len, at;
    if (at >= len) {
        len = read(fd, buffer, sizeof buffer);
        at = 0;
        CHECK(len > 0, "no event, wanted 0x%x from watch %d: %s", mask, wd, strerror(errno));
    }
    struct inotify_event *event = (void *)(buffer + at);
    at += sizeof *event + event->len;
    CHECK(event->wd == wd && event->mask == mask && strcmp(event->len ? event->name : "", name) == 0,
          "event 0x%x %s from watch %d, wanted 0x%x %s from %d", event->mask, event->len ? event->name : "",
          event->wd, mask, name, wd);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    SYS(mkdir(in_dir("a"), 0755));
    SYS(mkdir(in_dir("b"), 0755));
    SYS(mkdir(in_dir("dropped"), 0755));
    write_file(in_dir("b/file"), "1", 1);
    fd = SYS(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    int a = SYS(inotify_add_watch(fd, in_dir("a"), IN_CREATE | IN_DELETE | IN_MOVED_TO));
    int dropped = SYS(inotify_add_watch(fd, in_dir("dropped"), IN_ALL_EVENTS));
    int file = SYS(inotify_add_watch(fd, in_dir("b/file"), IN_CLOSE_WRITE | IN_MODIFY));
    int b = SYS(inotify_add_watch(fd, in_dir("b"), IN_ONLYDIR | IN_CREATE | IN_ONESHOT));
    SYS(inotify_rm_watch(fd, dropped));
    expect(dropped, IN_IGNORED, "");
    subject_hold();
    char byte;
    CHECK(read(fd, &byte, 1) < 0 && errno == EAGAIN, "an event is queued before anything happened");
    write_file(in_dir("a/new"), "", 0);
    expect(a, IN_CREATE, "new");
    SYS(unlink(in_dir("a/new")));
    expect(a, IN_DELETE, "new");
    write_file(in_dir("dropped/unseen"), "", 0);
    write_file(in_dir("b/one"), "", 0);
    expect(b, IN_CREATE, "one");
    expect(b, IN_IGNORED, ""); /* one-shot */
    int out = SYS(open(in_dir("b/file"), O_WRONLY | O_CLOEXEC));
    SYS(write(out, "2", 1));
    close(out);
    expect(file, IN_MODIFY, "");
    expect(file, IN_CLOSE_WRITE, "");
    CHECK_EQ(inotify_add_watch(fd, in_dir("a"), IN_CREATE), a); /* still the same watch */
    int fresh = SYS(inotify_add_watch(fd, in_dir("dropped"), IN_CREATE));
    CHECK(fresh != a && fresh != file && fresh != b && fresh != dropped, "number %d was given twice", fresh);
    subject_pass();
}
