// The interpreter: position-independent, uses no stack, touches only the area that it lives in.
//
// rbx current op, r12 thread context, r13 signal frame. Offsets are those of `Op` and `Context` in op.rs, where they are
// asserted at compile time. Clobbered at will: everything else (rt_sigreturn loads all of it again).

        .pushsection .text.fastboot_tape, "ax", @progbits
        .balign 64
        .globl fastboot_tape_start
        .globl fastboot_tape_end
        .hidden fastboot_tape_start
        .hidden fastboot_tape_end
fastboot_tape_start:
        mov     rbx, [r12 + 0]
        mov     r13, [r12 + 8]
.Lop:
        mov     eax, [rbx + 0]
        cmp     eax, 0
        je      .Lsyscall
        cmp     eax, 1
        je      .Lclone
        cmp     eax, 2
        je      .Lwait
        cmp     eax, 3
        je      .Lpost
        cmp     eax, 4
        je      .Lsigreturn
        cmp     eax, 5
        je      .Lstore
        mov     rax, -38
        jmp     .Lfail

.Lsyscall:
        mov     rax, [rbx + 8]
        mov     rdi, [rbx + 16]
        mov     rsi, [rbx + 24]
        mov     rdx, [rbx + 32]
        mov     r10, [rbx + 40]
        mov     r8,  [rbx + 48]
        mov     r9,  [rbx + 56]
        syscall
        mov     ecx, [rbx + 88]
        cmp     ecx, 1
        jb      .Lequal
        ja      .Lok
        test    rax, rax
        jns     .Lok
        jmp     .Lbad
.Lequal:
        cmp     rax, [rbx + 64]
        jne     .Lbad
.Lok:
        mov     rdx, [rbx + 72]
        test    rdx, rdx
        jz      .Lnext
        mov     rbx, rdx
        jmp     .Lop
.Lnext:
        add     rbx, 104
        jmp     .Lop
.Lbad:
        mov     rdx, [rbx + 80]
        test    rdx, rdx
        jz      .Lfail
        mov     rbx, rdx
        jmp     .Lop

        // A thread of its own: the child takes the context named by the op.
.Lclone:
        mov     rax, [rbx + 8]
        mov     rdi, [rbx + 16]
        mov     rsi, [rbx + 24]
        syscall
        test    rax, rax
        jz      .Lchild
        mov     ecx, [rbx + 88]
        cmp     ecx, 1
        jb      .Lequal
        test    rax, rax
        jns     .Lok
        jmp     .Lbad
.Lchild:
        mov     r12, [rbx + 96]
        mov     rbx, [r12 + 0]
        mov     r13, [r12 + 8]
        jmp     .Lop

        // Wait until the word at arg0 is at least arg1, at most the timespec at arg2 between changes.
.Lwait:
        mov     r14, [rbx + 16]
        mov     r15, [rbx + 24]
.Lwait_again:
        mov     edx, [r14]
        cmp     edx, r15d
        jae     .Lok
        mov     rdi, r14
        mov     esi, 128
        mov     r10, [rbx + 32]
        mov     eax, 202
        syscall
        cmp     rax, -110
        je      .Lbad
        jmp     .Lwait_again

        // Add one to the word at arg0, wake its waiters, go on at on_ok. The op itself is not read after the addition:
        // whoever waits for the word may unmap it.
.Lpost:
        mov     rdi, [rbx + 16]
        mov     r14, [rbx + 72]
        lock inc dword ptr [rdi]
        mov     esi, 129
        mov     edx, 0x7fffffff
        mov     eax, 202
        syscall
        mov     rbx, r14
        jmp     .Lop

        // A word to a place in memory.
.Lstore:
        mov     rdi, [rbx + 16]
        mov     rax, [rbx + 24]
        mov     [rdi], rax
        jmp     .Lok

.Lsigreturn:
        lea     rsp, [r13 + 8]
        mov     eax, 15
        syscall
        ud2

        // Say which op failed and with what, then end the whole process.
.Lfail:
        mov     [r12 + 40], rax
        mov     eax, [rbx + 4]
        mov     [r12 + 32], rax
        mov     rdi, [r12 + 16]
        lea     rsi, [r12 + 24]
        mov     edx, 256
        mov     eax, 1
        syscall
        mov     edi, 127
        mov     eax, 231
        syscall
        ud2
fastboot_tape_end:

// The beginning of the page that stays in a restored process for its libraries: its mark, the number of this life, and
// what they call instead of getpid(2). The mark names the layout: a thread may be stopped inside, so instructions that
// are changed get another one.
        .balign 8
        .globl fastboot_answer_start
        .globl fastboot_answer_end
        .hidden fastboot_answer_start
        .hidden fastboot_answer_end
fastboot_answer_start:
        .ascii  "fastboot getpid1"
.Lkey:
        .quad   0
        endbr64
        mov     eax, 39
        syscall
        xor     eax, [rip + .Lkey]
        ret
        .balign 8
fastboot_answer_end:
        .popsection
