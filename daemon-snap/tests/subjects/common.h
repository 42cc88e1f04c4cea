/* What must be equal before and after in every process of every subject, whatever the subject is about:
 * ids, status, limits, descriptors, signal handlers, names, layout. Written as lines and compared as lines. */
#pragma once
#include <dirent.h>

#define COMMON_BYTES (512 << 10)
#define COMMON_SPANS 6000

struct common_text {
    char bytes[COMMON_BYTES];
    size_t used;
};

/* One mapping, or several that continue each other. */
struct common_span {
    unsigned long start, end, offset;
    char perms[5];
    char name[42]; /* the end of the path is what differs */
};

struct common_spans {
    struct common_span span[COMMON_SPANS];
    size_t count;
};

static struct common_text common_before, common_after;
static struct common_spans common_spans_before, common_spans_after;
static char common_scratch[1 << 20];

static void __attribute__((format(printf, 2, 3))) common_line(struct common_text *text, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    size_t room = sizeof text->bytes - text->used;
    int len = vsnprintf(text->bytes + text->used, room, format, list);
    va_end(list);
    CHECK(len >= 0 && (size_t)len + 2 < room, "the common text is full");
    text->used += len;
    text->bytes[text->used++] = '\n';
    text->bytes[text->used] = 0;
}

static uint64_t common_hash(const char *bytes, long len)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (long i = 0; i < len; i++)
        hash = (hash ^ (unsigned char)bytes[i]) * 0x100000001b3u;
    return hash;
}

/* Small files of /proc/self whose bytes must not change. */
static void common_files(struct common_text *text)
{
    static const char *names[] = {"cmdline", "environ", "auxv", "limits", "oom_score_adj", "personality",
                                  "coredump_filter", "loginuid", "timerslack_ns"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/%s", names[i]);
        long len = read_file(path, common_scratch, sizeof common_scratch);
        bool short_text = len > 0 && len < 24 && strcmp(names[i], "cmdline") != 0;
        if (short_text)
            common_scratch[strcspn(common_scratch, "\n")] = 0;
        common_line(text, "file %s: %ld bytes, hash %lx %s", names[i], len,
                    (unsigned long)common_hash(common_scratch, len), short_text ? common_scratch : "");
    }
    static const char *links[] = {"exe", "cwd", "root"};
    for (size_t i = 0; i < 3; i++) {
        char path[64], target[512];
        snprintf(path, sizeof path, "/proc/self/%s", links[i]);
        long len = readlink(path, target, sizeof target - 1);
        target[len < 0 ? 0 : len] = 0;
        common_line(text, "link %s: %s", links[i], target);
    }
}

/* Lines of /proc/self/task/TID/status that describe the thread and not its use of resources. */
static void common_status(struct common_text *text, long tid, bool root)
{
    static const char *keys[] = {"Name:", "Umask:", "Tgid:", "Pid:", "NSpid:", "NSpgid:", "NSsid:", "Uid:", "Gid:",
                                 "Groups:", "SigPnd:", "ShdPnd:", "SigBlk:", "SigIgn:", "SigCgt:", "Cap",
                                 "NoNewPrivs:", "Seccomp", "Speculation", "Cpus_allowed:", "Mems_allowed:",
                                 "THP_enabled:", "TracerPid:", "PPid:"};
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%ld/status", tid);
    read_file(path, common_scratch, sizeof common_scratch);
    char *save = NULL;
    for (char *line = strtok_r(common_scratch, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
            if (strncmp(line, keys[i], strlen(keys[i])) == 0 && !(root && keys[i][0] == 'P' && keys[i][1] == 'P'))
                common_line(text, "thread %ld %s", tid, line);
}

/* Fields of stat, numbered as in proc(5): ids, terminal, nice, policy, layout of the address space. */
static void common_stat(struct common_text *text, long tid)
{
    static const int fields[] = {5, 6, 7, 8, 19, 26, 27, 28, 38, 40, 41, 45, 46, 47, 48, 49, 50, 51};
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%ld/stat", tid);
    if (read_file(path, common_scratch, sizeof common_scratch) <= 0)
        return;
    char *save = NULL, *rest = strrchr(common_scratch, ')');
    int number = 3, next = 0;
    for (char *word = strtok_r(rest + 2, " ", &save); word; word = strtok_r(NULL, " ", &save), number++)
        if (next < (int)(sizeof fields / sizeof fields[0]) && number == fields[next]) {
            common_line(text, "thread %ld stat field %d: %s", tid, number, word);
            next++;
        }
}

/* Calls `each` for every numeric entry of a directory, in ascending order. */
static void common_numbers(const char *dir, void (*each)(struct common_text *, long, bool), struct common_text *text,
                           bool root)
{
    static long numbers[4096];
    static char entries[1 << 16];
    size_t count = 0;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        common_line(text, "directory %s: %s", dir, strerror(errno));
        return;
    }
    long len;
    while ((len = syscall(SYS_getdents64, fd, entries, sizeof entries)) > 0)
        for (long at = 0; at < len;) {
            struct dirent64_ {
                uint64_t ino, off;
                unsigned short reclen;
                unsigned char type;
                char name[];
            } *entry = (void *)(entries + at);
            at += entry->reclen;
            long number = atol(entry->name);
            bool own = strstr(dir, "/fd") && number == fd;
            if (entry->name[0] != '.' && !own && count < sizeof numbers / sizeof numbers[0])
                numbers[count++] = number;
        }
    close(fd);
    for (size_t i = 1; i < count; i++)
        for (size_t j = i; j > 0 && numbers[j - 1] > numbers[j]; j--) {
            long swap = numbers[j];
            numbers[j] = numbers[j - 1];
            numbers[j - 1] = swap;
        }
    for (size_t i = 0; i < count; i++)
        each(text, numbers[i], root);
}

/* A thread that the kernel made for an io_uring, and makes again when it needs one (PF_IO_WORKER). */
static bool common_is_worker(long tid)
{
    char path[64], text[1024];
    unsigned long flags = 0;
    snprintf(path, sizeof path, "/proc/self/task/%ld/stat", tid);
    if (read_file(path, text, sizeof text) > 0)
        sscanf(strrchr(text, ')'), ") %*c %*d %*d %*d %*d %*d %lu", &flags);
    return flags & 0x10;
}

/* All are listed, so that their number need not be compared. */
static void common_thread(struct common_text *text, long tid, bool root)
{
    if (common_is_worker(tid))
        return;
    common_status(text, tid, root);
    common_stat(text, tid);
}

/* Object numbers of sockets and pipes change; so does the name of a deleted file. */
static void common_target(char *target)
{
    char *bracket = strstr(target, ":[");
    if (bracket)
        *bracket = 0;
    size_t len = strlen(target);
    if (len > 10 && strcmp(target + len - 10, " (deleted)") == 0)
        strcpy(target, "(deleted)");
}

static void common_fd(struct common_text *text, long fd, bool root)
{
    (void)root;
    char path[64], target[512];
    snprintf(path, sizeof path, "/proc/self/fd/%ld", fd);
    long len = readlink(path, target, sizeof target - 1);
    target[len < 0 ? 0 : len] = 0;
    common_target(target);
    common_line(text, "fd %ld: cloexec %d, flags 0%o, to %s", fd, fcntl(fd, F_GETFD), fcntl(fd, F_GETFL), target);
}

/* The kernel's own view; libc would hide flags and restorer. */
static void common_signals(struct common_text *text)
{
    for (int signal = 1; signal <= 64; signal++) {
        struct {
            unsigned long handler, flags, restorer, mask;
        } action = {0};
        if (syscall(SYS_rt_sigaction, signal, NULL, &action, 8) == 0 && (action.handler || action.flags))
            common_line(text, "signal %d: handler 0x%lx flags 0x%lx restorer 0x%lx mask 0x%lx", signal,
                        action.handler, action.flags, action.restorer, action.mask);
    }
    uint64_t mask = 0;
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, 8);
    common_line(text, "signal mask 0x%lx", (unsigned long)mask);
}

static bool common_continues(const struct common_span *a, const struct common_span *b)
{
    bool file = a->name[0] && a->name[0] != '[';
    return a->end == b->start && strcmp(a->perms, b->perms) == 0 && strcmp(a->name, b->name) == 0 &&
           (!file || a->offset + (a->end - a->start) == b->offset);
}

static void common_maps(struct common_spans *spans)
{
    spans->count = 0;
    read_file("/proc/self/maps", common_scratch, sizeof common_scratch);
    char *save = NULL;
    for (char *line = strtok_r(common_scratch, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        struct common_span span = {0};
        char *name = strpbrk(line, "/[");
        char target[512];
        snprintf(target, sizeof target, "%s", name ? name : "");
        if (target[0] == '/')
            common_target(target);
        size_t len = strlen(target), room = sizeof span.name - 1;
        strcpy(span.name, target + (len > room ? len - room : 0));
        sscanf(line, "%lx-%lx %4s %lx", &span.start, &span.end, span.perms, &span.offset);
        struct common_span *last = spans->count ? &spans->span[spans->count - 1] : NULL;
        if (last && common_continues(last, &span))
            last->end = span.end;
        else if (spans->count < COMMON_SPANS)
            spans->span[spans->count++] = span;
    }
}

static bool common_same_span(const struct common_span *a, const struct common_span *b)
{
    bool stack = strcmp(a->name, "[stack]") == 0, heap = strcmp(a->name, "[heap]") == 0;
    bool file = a->name[0] && a->name[0] != '[';
    return strcmp(a->perms, b->perms) == 0 && strcmp(a->name, b->name) == 0 &&
           (stack ? b->start <= a->start : b->start == a->start) && (heap ? b->end >= a->end : b->end == a->end) &&
           (!file || a->offset == b->offset);
}

static void common_take_into(struct common_text *text, struct common_spans *spans, bool root)
{
    text->used = 0;
    common_files(text);
    common_numbers("/proc/self/task", common_thread, text, root);
    common_numbers("/proc/self/fd", common_fd, text, root);
    common_signals(text);
    common_maps(spans);
}

static void common_take(bool root)
{
    common_take_into(&common_before, &common_spans_before, root);
}

/* Adds the lines of `from` that `in` lacks. */
static void common_missing(const char *what, struct common_text *from, const struct common_text *in, char *report,
                           size_t size)
{
    for (char *line = from->bytes; *line;) {
        char *end = strchr(line, '\n');
        char saved = end[1];
        end[1] = 0;
        const char *found = strstr(in->bytes, line);
        while (found && found != in->bytes && found[-1] != '\n')
            found = strstr(found + 1, line);
        if (!found && strlen(report) + 300 < size)
            snprintf(report + strlen(report), 300, "\n  %s %.*s", what, (int)(end - line > 250 ? 250 : end - line),
                     line);
        end[1] = saved;
        line = end + 1;
    }
}

/* What a restore may leave behind; how much exactly is what left_behind.c is about. */
#define COMMON_LEFT_BEHIND (1ul << 20)

/* Bytes that are mapped now and were not before. */
static size_t common_extra;

/* All mappings as before; a little more may stay behind from the restore. */
static void common_check_maps(char *report, size_t size)
{
    size_t extra = 0, b = 0;
    for (size_t a = 0; a < common_spans_before.count; a++) {
        const struct common_span *old = &common_spans_before.span[a];
        while (b < common_spans_after.count && common_spans_after.span[b].end <= old->start) {
            extra += common_spans_after.span[b].end - common_spans_after.span[b].start;
            b++;
        }
        const struct common_span *new = &common_spans_after.span[b];
        if (b < common_spans_after.count && common_same_span(old, new))
            b++;
        else if (strlen(report) + 300 < size)
            snprintf(report + strlen(report), 300, "\n  mapping %lx-%lx %s %s is now %lx-%lx %s %s", old->start,
                     old->end, old->perms, old->name, new->start, new->end, new->perms, new->name);
    }
    common_extra = extra;
    if (extra > COMMON_LEFT_BEHIND && strlen(report) + 300 < size)
        snprintf(report + strlen(report), 300, "\n  mappings of %zu bytes more than before", extra);
}

/* A thread that waits in a call with a mask of its own has that mask again only when it has run. */
static void common_check(bool root)
{
    static char report[3000];
    for (int attempt = 0; attempt < 400; attempt++) {
        common_take_into(&common_after, &common_spans_after, root);
        report[0] = 0;
        common_missing("was:", &common_before, &common_after, report, sizeof report);
        common_missing("is: ", &common_after, &common_before, report, sizeof report);
        common_check_maps(report, sizeof report);
        if (report[0] == 0)
            return;
        nap_ms(5);
    }
    subject_fail(__FILE__, __LINE__, "pid %d is not what it was:%s", getpid(), report);
}
