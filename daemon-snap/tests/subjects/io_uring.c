/* io_uring rings at rest: counters, prepared requests and unread completions, at the same addresses. */
#include "subject.h"
#include <linux/io_uring.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#ifndef IORING_SETUP_NO_SQARRAY
#define IORING_SETUP_NO_SQARRAY (1u << 16)
#endif

struct ring {
    int fd;
    struct io_uring_params params;
    char *queues, *before;
    size_t len;
    struct io_uring_sqe *requests;
    size_t requests_len;
};

static unsigned *word(struct ring *ring, unsigned offset)
{
    return (unsigned *)(ring->queues + offset);
}

static void setup(struct ring *ring, unsigned entries, unsigned flags, unsigned completions)
{
    ring->params = (struct io_uring_params){.flags = flags, .cq_entries = completions};
    ring->fd = SYS(syscall(SYS_io_uring_setup, entries, &ring->params));
    struct io_uring_params *p = &ring->params;
    size_t cq = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
    size_t sq = flags & IORING_SETUP_NO_SQARRAY ? 0 : p->sq_off.array + p->sq_entries * sizeof(unsigned);
    ring->len = cq > sq ? cq : sq;
    ring->requests_len = p->sq_entries * sizeof(struct io_uring_sqe);
    int prot = PROT_READ | PROT_WRITE, how = MAP_SHARED | MAP_POPULATE;
    ring->queues = mmap(NULL, ring->len, prot, how, ring->fd, IORING_OFF_SQ_RING);
    ring->requests = mmap(NULL, ring->requests_len, prot, how, ring->fd, IORING_OFF_SQES);
    CHECK(ring->queues != MAP_FAILED && ring->requests != MAP_FAILED, "mmap: %s", strerror(errno));
    if (!(flags & IORING_SETUP_NO_SQARRAY))
        for (unsigned i = 0; i < p->sq_entries; i++)
            word(ring, p->sq_off.array)[i] = i;
}

/* The next request, prepared and not yet seen by the kernel. */
static struct io_uring_sqe *prepare(struct ring *ring, unsigned char operation, unsigned long data)
{
    unsigned *tail = word(ring, ring->params.sq_off.tail);
    struct io_uring_sqe *request = &ring->requests[*tail & (ring->params.sq_entries - 1)];
    memset(request, 0, sizeof *request);
    request->opcode = operation;
    request->user_data = data;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    return request;
}

static void submit(struct ring *ring, unsigned count)
{
    CHECK_EQ(syscall(SYS_io_uring_enter, ring->fd, count, count, IORING_ENTER_GETEVENTS, NULL, 0), (long)count);
}

static void expect(struct ring *ring, unsigned long data, int result)
{
    unsigned *head = word(ring, ring->params.cq_off.head), *tail = word(ring, ring->params.cq_off.tail);
    CHECK(*head != __atomic_load_n(tail, __ATOMIC_ACQUIRE), "no completion of request %lu", data);
    struct io_uring_cqe *all = (void *)(ring->queues + ring->params.cq_off.cqes);
    struct io_uring_cqe *one = &all[*head & (ring->params.cq_entries - 1)];
    CHECK_EQ(one->user_data, data);
    CHECK_EQ(one->res, result);
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
}

static void turn(struct ring *ring, unsigned count)
{
    while (count--) {
        prepare(ring, IORING_OP_NOP, count);
        submit(ring, 1);
        expect(ring, count, 0);
    }
}

static void remember(struct ring *ring)
{
    ring->before = malloc(ring->len);
    memcpy(ring->before, ring->queues, ring->len);
}

/* Whoever mapped it knows head and tail by address, so both must be the kernel's as well as the memory's. */
static void check_same(struct ring *ring)
{
    CHECK(memcmp(ring->before, ring->queues, ring->len) == 0, "the queues are not what they were");
    turn(ring, 3 * ring->params.cq_entries + 1);
}

/* As libuv does: registrations at an epoll set, many at a time. */
static void for_epoll(unsigned flags)
{
    struct ring ring;
    int epoll = SYS(epoll_create1(EPOLL_CLOEXEC)), ends[2];
    SYS(pipe2(ends, O_CLOEXEC | O_NONBLOCK));
    setup(&ring, 256, flags, 0);
    struct epoll_event event = {EPOLLIN, {.u64 = 77}};
    struct io_uring_sqe *request = prepare(&ring, IORING_OP_EPOLL_CTL, 1);
    request->fd = epoll;
    request->off = ends[0];
    request->len = EPOLL_CTL_ADD;
    request->addr = (unsigned long)&event;
    submit(&ring, 1);
    expect(&ring, 1, 0);
    turn(&ring, 1000);
    remember(&ring);
    subject_hold();
    check_same(&ring);
    SYS(write(ends[1], "x", 1));
    CHECK_EQ(epoll_wait(epoll, &event, 1, 500), 1);
    CHECK_EQ(event.data.u64, 77);
    request = prepare(&ring, IORING_OP_EPOLL_CTL, 2);
    request->fd = epoll;
    request->off = ends[0];
    request->len = EPOLL_CTL_DEL;
    submit(&ring, 1);
    expect(&ring, 2, 0);
    CHECK_EQ(epoll_wait(epoll, &event, 1, 0), 0);
}

/* Requests that are prepared, completions that nobody has looked at; queues of other sizes than usual. */
static void half_way(void)
{
    struct ring ring;
    setup(&ring, 8, IORING_SETUP_CQSIZE, 64);
    turn(&ring, 21);
    for (unsigned i = 0; i < 5; i++)
        prepare(&ring, IORING_OP_NOP, 500 + i);
    CHECK_EQ(syscall(SYS_io_uring_enter, ring.fd, 2, 0, 0, NULL, 0), 2);
    remember(&ring);
    subject_hold();
    CHECK(memcmp(ring.before, ring.queues, ring.len) == 0, "the queues are not what they were");
    expect(&ring, 500, 0);
    expect(&ring, 501, 0);
    submit(&ring, 3);
    for (unsigned i = 2; i < 5; i++)
        expect(&ring, 500 + i, 0);
    turn(&ring, 100);
}

/* A request that the kernel hands to a thread of its own, which stays among ours; two rings side by side. */
static void with_worker(void)
{
    struct ring ring, other;
    char text[4] = "";
    setup(&ring, 4, 0, 0);
    setup(&other, 32, 0, 0);
    int file = SYS(open(in_dir("text"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    SYS(write(file, "abc", 3));
    struct io_uring_sqe *request = prepare(&ring, IORING_OP_READ, 9);
    request->flags = IOSQE_ASYNC;
    request->fd = file;
    request->addr = (unsigned long)text;
    request->len = 3;
    submit(&ring, 1);
    expect(&ring, 9, 3);
    turn(&other, 40);
    remember(&ring);
    remember(&other);
    subject_hold();
    check_same(&ring);
    check_same(&other);
    CHECK(memcmp(text, "abc", 3) == 0, "it read %.3s", text);
}

static struct ring common;

static void child(void *argument)
{
    (void)argument;
    member_hold("child");
    turn(&common, 10);
}

static void shared_by_fork(void)
{
    setup(&common, 16, 0, 0);
    turn(&common, 33);
    remember(&common);
    pid_t pid = fork_member(child, NULL);
    await_member("child");
    subject_hold();
    reap(pid);
    /* What the child has done counts for both. */
    CHECK_EQ(*word(&common, common.params.cq_off.tail), 43);
    turn(&common, 50);
}

/* Registers a ring under a number of the calling thread; -1 lets the kernel choose. */
static int name_ring(struct ring *ring, unsigned number)
{
    struct io_uring_rsrc_update update = {.offset = number, .data = ring->fd};
    CHECK_EQ(syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_RING_FDS, &update, 1), 1);
    return update.offset;
}

/* A request by number; the completion tells which ring it was. */
static void turn_by_number(struct ring *ring, unsigned number)
{
    unsigned flags = IORING_ENTER_GETEVENTS | IORING_ENTER_REGISTERED_RING;
    prepare(ring, IORING_OP_NOP, 70 + number);
    CHECK_EQ(syscall(SYS_io_uring_enter, number, 1, 1, flags, NULL, 0), 1);
    expect(ring, 70 + number, 0);
}

static void check_no_number(unsigned number)
{
    int got = syscall(SYS_io_uring_enter, number, 0, 0, IORING_ENTER_REGISTERED_RING, NULL, 0);
    CHECK(got < 0 && errno == EBADF, "there is a ring under number %u", number);
}

static struct ring first, second;

static void *with_other_numbers(void *unused)
{
    (void)unused;
    CHECK_EQ(name_ring(&second, 0), 0);
    CHECK_EQ(name_ring(&first, 15), 15);
    thread_hold();
    turn_by_number(&second, 0);
    check_no_number(9);
    turn_by_number(&first, 15);
    return NULL;
}

static void *without_numbers(void *unused)
{
    (void)unused;
    thread_hold();
    int got = syscall(SYS_io_uring_enter, 0, 0, 0, IORING_ENTER_REGISTERED_RING, NULL, 0);
    CHECK(got < 0 && errno == EINVAL, "a thread that never used a ring has a number of one");
    return NULL;
}

static void under_numbers(void)
{
    setup(&first, 8, 0, 0);
    setup(&second, 8, 0, 0); /* alike but for what they are */
    CHECK_EQ(name_ring(&first, -1u), 0);
    CHECK_EQ(name_ring(&second, 9), 9);
    turn_by_number(&first, 0);
    turn_by_number(&second, 9);
    pthread_t threads[2] = {start_thread(with_other_numbers, NULL), start_thread(without_numbers, NULL)};
    await_threads(2);
    subject_hold();
    turn_by_number(&first, 0);
    turn_by_number(&second, 9);
    check_no_number(1);
    check_no_number(15);
    release_threads();
    for (int i = 0; i < 2; i++)
        PTHREAD(pthread_join(threads[i], NULL));
    turn(&first, 40);
    turn(&second, 40);
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    if (variant("epoll"))
        for_epoll(0);
    else if (variant("no_array"))
        for_epoll(IORING_SETUP_NO_SQARRAY);
    else if (variant("half_way"))
        half_way();
    else if (variant("worker"))
        with_worker();
    else if (variant("number"))
        under_numbers();
    else
        shared_by_fork();
    subject_pass();
}
