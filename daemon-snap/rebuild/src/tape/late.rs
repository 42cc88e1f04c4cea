//! Descriptors that can be made only when all processes exist: the tape says that its process does,
//! and takes them in.

use super::area::Region;
use super::assembly::Assembly;
use super::op::{Op, Record, RecordKind, Step, Want};
use super::sequence::Sequence;
use snap_error::Result;
use snap_state::FdV1;

/// To be executed when the threads of the process exist. One message for each descriptor,
/// ascending; each arrives under the lowest number that is free.
pub fn ops(asm: &mut Assembly<'_>) -> Result<Sequence> {
    let (env, process, area) = (asm.env, asm.process, &mut asm.area);
    let mut seq = Sequence::default();
    if !env.duties.announces {
        return Ok(seq);
    }
    let record = area.put(Region::Drop, &Record::new(RecordKind::Exists, process.pid.0, 0).bytes(), 8)?;
    let write = [env.fds.status as u64, record, Record::BYTES as u64];
    seq.push(Op::syscall(Step::Announce, libc::SYS_write, &write, Want::Exactly(Record::BYTES as i64)));
    let Some(socket) = env.fds.late else { return Ok(seq) };

    const CONTROL_BYTES: u64 = 24; // CMSG_SPACE(sizeof(int))
    let byte = area.reserve(Region::Drop, 8, 8)?;
    let control = area.reserve(Region::Drop, CONTROL_BYTES, 8)?;
    let iov: Vec<u8> = [byte, 1].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let iov = area.put(Region::Drop, &iov, 8)?;
    // struct msghdr: name, its length, vectors, control, flags. The kernel writes back what it used
    // of the control bytes: all of them.
    let header: Vec<u8> =
        [0, 0, iov, 1, control, CONTROL_BYTES, 0].iter().flat_map(|word: &u64| word.to_ne_bytes()).collect();
    let header = area.put(Region::Drop, &header, 8)?;

    let is_late = |fd: &&FdV1| env.objects.is_late(fd.file);
    let mut taken: Vec<i32> = process.fds.iter().filter(|fd| !is_late(fd)).map(|fd| fd.fd.0).collect();
    for fd in process.fds.iter().filter(is_late) {
        let number = fd.fd.0;
        let lowest = lowest_free(&taken);
        let flags = if fd.cloexec { libc::MSG_CMSG_CLOEXEC } else { 0 };
        let receive = [socket as u64, header, flags as u64];
        seq.push(Op::syscall(Step::LateFd, libc::SYS_recvmsg, &receive, Want::Exactly(1)));
        if lowest != number {
            let flags = if fd.cloexec { libc::O_CLOEXEC } else { 0 };
            let place = [lowest as u64, number as u64, flags as u64];
            seq.push(Op::syscall(Step::LateFd, libc::SYS_dup3, &place, Want::Exactly(i64::from(number))));
            seq.push(Op::syscall(Step::LateFd, libc::SYS_close, &[lowest as u64], Want::Exactly(0)));
        }
        // A message without a descriptor would go unnoticed otherwise.
        let check = [number as u64, libc::F_GETFD as u64];
        let expected = if fd.cloexec { i64::from(libc::FD_CLOEXEC) } else { 0 };
        seq.push(Op::syscall(Step::LateFd, libc::SYS_fcntl, &check, Want::Exactly(expected)));
        let at = taken.partition_point(|other| *other < number);
        taken.insert(at, number);
    }
    Ok(seq)
}

/// `taken` is ascending.
fn lowest_free(taken: &[i32]) -> i32 {
    taken.iter().zip(0..).find(|(number, index)| **number != *index).map_or(taken.len() as i32, |(_, at)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_free_number_is_the_first_gap() {
        assert_eq!(lowest_free(&[]), 0);
        assert_eq!(lowest_free(&[0, 1, 2]), 3);
        assert_eq!(lowest_free(&[0, 2, 3]), 1);
        assert_eq!(lowest_free(&[1]), 0);
    }
}
