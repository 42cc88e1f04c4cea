/* Variant file: the mutex lies in a file on disk, which does not end with the processes.
 * A thread that ends with a robust mutex held hands it over as EOWNERDEAD; get_robust_list is what it was. */
#include "subject.h"

static pthread_mutex_t *mutex;
static void *head_before;
static size_t len_before;

static void *body(void *unused)
{
    PTHREAD(pthread_mutex_lock(mutex));
    SYS(syscall(SYS_get_robust_list, 0, &head_before, &len_before));
    thread_hold();
    void *head;
    size_t len;
    SYS(syscall(SYS_get_robust_list, 0, &head, &len));
    CHECK_EQ((uintptr_t)head, (uintptr_t)head_before);
    CHECK_EQ(len, len_before);
    return unused; /* without unlocking */
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    pthread_mutexattr_t attributes;
    PTHREAD(pthread_mutexattr_init(&attributes));
    PTHREAD(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST));
    int fd = SYS(open(in_dir("mutex"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    SYS(ftruncate(fd, 4096));
    int flags = variant("file") ? MAP_SHARED : MAP_PRIVATE;
    mutex = SYS(mmap(NULL, 4096, PROT_READ | PROT_WRITE, flags, fd, 0));
    PTHREAD(pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED));
    PTHREAD(pthread_mutex_init(mutex, &attributes));
    pthread_t thread = start_thread(body, NULL);
    await_threads(1);
    subject_hold();
    CHECK_EQ(pthread_mutex_trylock(mutex), EBUSY);
    release_threads();
    PTHREAD(pthread_join(thread, NULL));
    CHECK_EQ(pthread_mutex_lock(mutex), EOWNERDEAD);
    PTHREAD(pthread_mutex_consistent(mutex));
    PTHREAD(pthread_mutex_unlock(mutex));
    PTHREAD(pthread_mutex_lock(mutex));
    subject_pass();
}
