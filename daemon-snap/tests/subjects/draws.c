/* Draws from OpenSSL and libgcrypt whenever the harness asks, in a process, in a child that it had before, and in a
 * child that it forks then. The harness compares. Libraries are opened by name: nothing of theirs is needed to build
 * this. OpenSSL is there twice, as it is where a program brings one of its own: each has its own words and state. */
#include "subject.h"
#include <dlfcn.h>
#include <link.h>
#include <malloc.h>

#define DRAWN 16

typedef int openssl_draw(unsigned char *bytes, int len);
typedef void gcrypt_draw(void *bytes, size_t len, int level);

static openssl_draw *openssl, *other_copy;
static gcrypt_draw *gcrypt;
static atomic_bool serving;

static void append_hex(char *text, size_t size, const char *name, const unsigned char *bytes)
{
    snprintf(text + strlen(text), size - strlen(text), "%s ", name);
    for (int i = 0; i < DRAWN; i++)
        snprintf(text + strlen(text), size - strlen(text), "%02x", bytes[i]);
    snprintf(text + strlen(text), size - strlen(text), "\n");
}

/* A line for each generator. */
static void draw(char *text, size_t size, const char *who)
{
    unsigned char bytes[DRAWN];
    char name[64];
    snprintf(name, sizeof name, "%s-openssl", who);
    CHECK(openssl(bytes, DRAWN) == 1, "%s cannot draw", name);
    append_hex(text, size, name, bytes);
    snprintf(name, sizeof name, "%s-copy", who);
    CHECK(other_copy(bytes, DRAWN) == 1, "%s cannot draw", name);
    append_hex(text, size, name, bytes);
    if (gcrypt) {
        snprintf(name, sizeof name, "%s-gcrypt", who);
        gcrypt(bytes, DRAWN, 1);
        append_hex(text, size, name, bytes);
    }
}

/* The same in a child that is made now: it begins with the state of its parent. */
static void draw_in_fork(char *text, size_t size, const char *who)
{
    int ends[2];
    SYS(pipe2(ends, O_CLOEXEC));
    pid_t child = SYS(fork());
    if (child == 0) {
        static char drawn[1024];
        draw(drawn, sizeof drawn, who);
        _exit(write(ends[1], drawn, strlen(drawn)) < 0);
    }
    close(ends[1]);
    size_t used = strlen(text);
    ssize_t got;
    while ((got = read(ends[0], text + used, size - 1 - used)) > 0)
        used += got;
    text[used] = 0;
    close(ends[0]);
    reap(child);
}

/* Answers to a file `draw-WHO` with one `drawn-WHO`. Everybody else's process id stays what it was. */
static void *serve(void *argument)
{
    const char *who = argument;
    char asked[64], answer[64], fork_name[64];
    snprintf(asked, sizeof asked, "draw-%s", who);
    snprintf(answer, sizeof answer, "drawn-%s", who);
    snprintf(fork_name, sizeof fork_name, "fork-of-%s", who);
    char ask_path[320];
    pid_t own = getpid();
    snprintf(ask_path, sizeof ask_path, "%s/%s", subject_dir, asked);
    serving = true;
    for (;;) {
        if (unlink(ask_path) < 0) {
            nap_ms(2);
            continue;
        }
        static char text[4096];
        text[0] = 0;
        CHECK_EQ(getpid(), own);
        draw(text, sizeof text, who);
        draw_in_fork(text, sizeof text, fork_name);
        publish(answer, text);
    }
}

static void copy_file(const char *from, const char *to)
{
    static char bytes[1 << 16];
    int in = SYS(open(from, O_RDONLY | O_CLOEXEC)), out = SYS(open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0755));
    ssize_t got;
    while ((got = SYS(read(in, bytes, sizeof bytes))) > 0)
        CHECK(write(out, bytes, got) == got, "short write to %s", to);
    close(in);
    close(out);
}

static void member(void *unused)
{
    (void)unused;
    start_thread(serve, "member");
    await_that(serving);
    member_hold("member");
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    /* A thread that draws would map a heap of its own. */
    mallopt(M_ARENA_MAX, 1);
    void *library = dlopen("libcrypto.so.3", RTLD_NOW);
    CHECK(library, "%s", dlerror());
    openssl = (openssl_draw *)dlsym(library, "RAND_bytes");
    struct link_map *map = NULL;
    CHECK(dlinfo(library, RTLD_DI_LINKMAP, &map) == 0, "%s", dlerror());
    copy_file(map->l_name, in_dir("libcrypto.so.copy"));
    void *copy = dlopen(in_dir("libcrypto.so.copy"), RTLD_NOW);
    CHECK(copy, "%s", dlerror());
    other_copy = (openssl_draw *)dlsym(copy, "RAND_bytes");
    CHECK(openssl && other_copy && openssl != other_copy, "no RAND_bytes, or one for both");
    void *second = dlopen("libgcrypt.so.20", RTLD_NOW);
    if (second) {
        const char *(*check)(const char *) = (const char *(*)(const char *))dlsym(second, "gcry_check_version");
        gcrypt = (gcrypt_draw *)dlsym(second, "gcry_randomize");
        CHECK(check && gcrypt && check(NULL), "no libgcrypt");
    }
    char text[1024] = "";
    draw(text, sizeof text, "first");
    pid_t child = fork_member(member, NULL);
    await_member("member");
    start_thread(serve, "root");
    await_that(serving);
    subject_hold();
    reap(child);
    subject_pass();
}
