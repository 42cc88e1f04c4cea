//! Would a stack of seccomp filters let a system call pass? Classic BPF as seccomp(2) runs it,
//! evaluated here so that the tape never makes a call that would end the daemon.

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const RET_ALLOW: u32 = 0x7fff_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const ACTION_MASK: u32 = 0xffff_0000;

/// Whether every filter says allow (or log). Programs are arrays of `struct sock_filter`; a
/// malformed one allows nothing.
pub fn allows(programs: &[&[u8]], number: u32, args: &[u64]) -> bool {
    let data = seccomp_data(number, args);
    programs
        .iter()
        .all(|program| matches!(run(program, &data).map(|r| r & ACTION_MASK), Some(RET_ALLOW | RET_LOG)))
}

/// `struct seccomp_data`: nr, arch, instruction pointer, six arguments.
fn seccomp_data(number: u32, args: &[u64]) -> [u8; 64] {
    let mut data = [0; 64];
    data[0..4].copy_from_slice(&number.to_ne_bytes());
    data[4..8].copy_from_slice(&AUDIT_ARCH_X86_64.to_ne_bytes());
    for (slot, arg) in data[16..].chunks_exact_mut(8).zip(args) {
        slot.copy_from_slice(&arg.to_ne_bytes());
    }
    data
}

fn run(program: &[u8], data: &[u8; 64]) -> Option<u32> {
    let count = program.len() / 8;
    let (mut a, mut x, mut memory) = (0u32, 0u32, [0u32; 16]);
    let mut at = 0usize;
    while at < count {
        let insn = &program[at * 8..at * 8 + 8];
        let code = u16::from_ne_bytes([insn[0], insn[1]]);
        let (jump_true, jump_false) = (usize::from(insn[2]), usize::from(insn[3]));
        let k = u32::from_ne_bytes([insn[4], insn[5], insn[6], insn[7]]);
        let slot = k as usize;
        at += 1;
        let operand = if code & 0x08 != 0 { x } else { k };
        match code & 0x07 {
            // BPF_LD: absolute word, immediate, memory, length
            0x00 => {
                a = match code {
                    0x20 => u32::from_ne_bytes(data.get(slot..slot + 4)?.try_into().ok()?),
                    0x00 => k,
                    0x60 => *memory.get(slot)?,
                    0x80 => 64,
                    _ => return None,
                }
            }
            // BPF_LDX
            0x01 => {
                x = match code {
                    0x01 => k,
                    0x61 => *memory.get(slot)?,
                    0x81 => 64,
                    _ => return None,
                }
            }
            0x02 => *memory.get_mut(slot)? = a,
            0x03 => *memory.get_mut(slot)? = x,
            // BPF_ALU
            0x04 => {
                a = match code & 0xf0 {
                    0x00 => a.wrapping_add(operand),
                    0x10 => a.wrapping_sub(operand),
                    0x20 => a.wrapping_mul(operand),
                    0x30 => a.checked_div(operand)?,
                    0x40 => a | operand,
                    0x50 => a & operand,
                    0x60 => a.checked_shl(operand).unwrap_or(0),
                    0x70 => a.checked_shr(operand).unwrap_or(0),
                    0x80 => a.wrapping_neg(),
                    0xa0 => a ^ operand,
                    _ => return None,
                }
            }
            // BPF_JMP
            0x05 => {
                let taken = match code & 0xf0 {
                    0x00 => {
                        at += slot;
                        continue;
                    }
                    0x10 => a == operand,
                    0x20 => a > operand,
                    0x30 => a >= operand,
                    0x40 => a & operand != 0,
                    _ => return None,
                };
                at += if taken { jump_true } else { jump_false };
            }
            // BPF_RET
            0x06 => return Some(if code & 0x18 == 0x10 { a } else { k }),
            // BPF_MISC: tax, txa
            _ => {
                if code & 0x80 != 0 {
                    a = x;
                } else {
                    x = a;
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insn(code: u16, jt: u8, jf: u8, k: u32) -> Vec<u8> {
        let mut out = code.to_ne_bytes().to_vec();
        out.extend_from_slice(&[jt, jf]);
        out.extend_from_slice(&k.to_ne_bytes());
        out
    }

    #[test]
    fn filter_that_forbids_one_call_allows_the_others() {
        let program = [
            insn(0x20, 0, 0, 0),
            insn(0x15, 0, 1, 11),
            insn(0x06, 0, 0, 0x5_0001),
            insn(0x06, 0, 0, RET_ALLOW),
        ]
        .concat();
        assert!(!allows(&[&program], 11, &[]));
        assert!(allows(&[&program], 12, &[]));
    }

    #[test]
    fn arguments_are_seen() {
        let program =
            [insn(0x20, 0, 0, 16), insn(0x15, 0, 1, 7), insn(0x06, 0, 0, RET_ALLOW), insn(0x06, 0, 0, 0)]
                .concat();
        assert!(allows(&[&program], 1, &[7]));
        assert!(!allows(&[&program], 1, &[8]));
    }

    #[test]
    fn malformed_program_allows_nothing() {
        assert!(!allows(&[&[0xff; 8]], 1, &[]));
        assert!(!allows(&[&[]], 1, &[]));
    }
}
