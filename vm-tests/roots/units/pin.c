/* Programs for the control groups of units (bpf(2)), pinned where unit files name them (containers have no /sys/fs/bpf):
 *   no-far      nothing goes to or comes for 127.0.0.2      no-near  the same for 127.0.0.1
 *   no-bind     nobody binds to port 7161
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DIR "/run/programs"

static void die(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static long bpf(int command, union bpf_attr *attr) {
    return syscall(SYS_bpf, command, attr, sizeof *attr);
}

/* Ends with a comparison of register 0: if equal 0, else 1. */
static void pin(const char *name, int type, int attach, struct bpf_insn *test, unsigned len, uint32_t value) {
    static char log[65536];
    char path[64];
    struct bpf_insn all[16];
    struct bpf_insn end[] = {
        { .code = BPF_JMP32 | BPF_JEQ | BPF_K, .dst_reg = BPF_REG_0, .off = 2, .imm = (int) value },
        { .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 1 },
        { .code = BPF_JMP | BPF_EXIT },
        { .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 0 },
        { .code = BPF_JMP | BPF_EXIT },
    };
    memcpy(all, test, len * sizeof *test);
    memcpy(all + len, end, sizeof end);
    union bpf_attr load = {
        .prog_type = type,
        .expected_attach_type = attach,
        .insns = (uintptr_t) all,
        .insn_cnt = len + sizeof end / sizeof *end,
        .license = (uintptr_t) "GPL",
        .log_buf = (uintptr_t) log,
        .log_size = sizeof log,
        .log_level = 1,
    };
    int program = bpf(BPF_PROG_LOAD, &load);
    if (program < 0) {
        fputs(log, stderr);
        die(name);
    }
    snprintf(path, sizeof path, DIR "/%s", name);
    union bpf_attr pinned = { .pathname = (uintptr_t) path, .bpf_fd = program };
    if (bpf(BPF_OBJ_PIN, &pinned) < 0)
        die(path);
}

int main(void) {
    /* skb_load_bytes(packet, 16, below the frame, 4): the destination in an IPv4 header. A packet without one is not compared. */
    struct bpf_insn destination[] = {
        { .code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = BPF_REG_3, .src_reg = BPF_REG_10 },
        { .code = BPF_ALU64 | BPF_ADD | BPF_K, .dst_reg = BPF_REG_3, .imm = -8 },
        { .code = BPF_ST | BPF_MEM | BPF_W, .dst_reg = BPF_REG_3, .imm = 0 },
        { .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_2, .imm = 16 },
        { .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_4, .imm = 4 },
        { .code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_skb_load_bytes },
        { .code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = BPF_REG_0, .src_reg = BPF_REG_10, .off = -8 },
    };
    struct bpf_insn port[] = {
        { .code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = BPF_REG_0, .src_reg = BPF_REG_1,
          .off = offsetof(struct bpf_sock_addr, user_port) },
    };
    unsigned len = sizeof destination / sizeof *destination;
    if (mkdir(DIR, 0700) < 0 || mount("bpf", DIR, "bpf", 0, NULL) < 0)
        die(DIR);
    pin("no-far", BPF_PROG_TYPE_CGROUP_SKB, 0, destination, len, inet_addr("127.0.0.2"));
    pin("no-near", BPF_PROG_TYPE_CGROUP_SKB, 0, destination, len, inet_addr("127.0.0.1"));
    pin("no-bind", BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_BIND, port, 1, htons(7161));
    return 0;
}
