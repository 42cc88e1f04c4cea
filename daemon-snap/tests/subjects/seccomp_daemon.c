/* A filter as services have it (SystemCallFilter=): what restoring needs is forbidden, with EPERM or by death. */
#include "subject.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>

static void *body(void *unused)
{
    thread_hold();
    errno = 0;
    CHECK(syscall(SYS_clone3, NULL, 0) < 0 && errno == EPERM, "clone3 gives %s in the thread", strerror(errno));
    return unused;
}

int main(int argc, char **argv)
{
    subject_begin(argc, argv);
    static const int forbidden[] = {SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_clone3, SYS_setns,
                                    SYS_unshare, SYS_mount, SYS_chroot, SYS_capset, SYS_setresuid, SYS_setresgid,
                                    SYS_setgroups, SYS_mremap, SYS_prctl, SYS_seccomp, SYS_timer_create,
                                    SYS_setitimer, SYS_sched_setattr, SYS_setpriority, SYS_io_uring_setup,
                                    SYS_io_uring_enter, SYS_preadv, SYS_preadv2, SYS_sigaltstack, SYS_arch_prctl,
                                    SYS_set_tid_address, SYS_set_robust_list, SYS_rseq, SYS_socket, SYS_bind};
    struct sock_filter code[2 + 2 * sizeof forbidden / sizeof forbidden[0]];
    int n = 0;
    SYS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    pthread_t thread = start_thread(body, NULL);
    await_threads(1);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < sizeof forbidden / sizeof forbidden[0]; i++) {
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, forbidden[i], 0, 1);
        code[n++] = (struct sock_filter)BPF_STMT(
            BPF_RET | BPF_K, i % 2 ? SECCOMP_RET_ERRNO | EPERM : SECCOMP_RET_KILL_PROCESS);
    }
    code[4 * 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM); /* clone3 */
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {n, code};
    SYS(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program));
    subject_hold();
    CHECK(syscall(SYS_process_vm_readv, 0) < 0 && errno == EPERM, "a forbidden call gives %s", strerror(errno));
    pid_t pid = SYS(syscall(SYS_fork)); /* libc's would call set_robust_list */
    if (pid == 0)
        _exit(syscall(SYS_ptrace, 0) < 0); /* kills */
    int status;
    SYS(waitpid(pid, &status, 0));
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "status 0x%x of a forbidden call", status);
    release_threads();
    PTHREAD(pthread_join(thread, NULL));
    subject_pass();
}
