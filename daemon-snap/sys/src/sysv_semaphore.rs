//! System V semaphores (semget(2), semop(2), semctl(2)) of this thread's IPC namespace, and what a
//! process undoes of them when it ends.
//!
//! The kernel tells nobody what a process would undo. But it refuses an operation that would take
//! the adjustment out of its range (ERANGE), before it looks whether a later operation of the same
//! call has to wait; and a call that fails changes nothing. So calls that cannot succeed tell it.

use nix::errno::Errno;
use snap_state::IpcIdentityV1;

/// Highest value (SEMVMX), which is also the most that is ever added (SEMAEM).
const VALUE_MAX: i32 = 32_767;
/// The least.
const ADJUSTMENT_MIN: i32 = -32_768;

/// `struct sembuf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    pub number: u16,
    pub change: i16,
    pub flags: i16,
}

const UNDO: i16 = libc::SEM_UNDO as i16;
const NO_WAIT: i16 = libc::IPC_NOWAIT as i16;

impl Operation {
    pub const BYTES: usize = size_of::<libc::sembuf>();

    fn new(number: u16, change: i32, flags: i16) -> Self {
        Self { number, change: change as i16, flags: flags | NO_WAIT }
    }

    /// As the system call takes it.
    pub fn bytes(self) -> [u8; Self::BYTES] {
        let (number, change, flags) =
            (self.number.to_ne_bytes(), self.change.to_ne_bytes(), self.flags.to_ne_bytes());
        [number[0], number[1], change[0], change[1], flags[0], flags[1]]
    }
}

/// `semget(2)`; `EEXIST` when the key is taken.
///
/// # Errors
/// As semget(2).
pub fn create(key: i32, count: usize, mode: u32) -> Result<i32, Errno> {
    let flags = libc::IPC_CREAT | libc::IPC_EXCL | (mode & 0o777) as i32;
    // SAFETY: no pointers.
    Errno::result(unsafe { libc::semget(key, count as i32, flags) })
}

/// Owner and permissions.
///
/// # Errors
/// As semctl(2).
pub fn set_owner(identity: &IpcIdentityV1) -> Result<(), Errno> {
    // SAFETY: plain data that IPC_STAT fills.
    let mut info: libc::semid_ds = unsafe { std::mem::zeroed() };
    // SAFETY: info is writable.
    Errno::result(unsafe { libc::semctl(identity.id, 0, libc::IPC_STAT, &raw mut info) })?;
    info.sem_perm.uid = identity.uid;
    info.sem_perm.gid = identity.gid;
    info.sem_perm.mode = identity.mode as _;
    // SAFETY: info is live.
    Errno::result(unsafe { libc::semctl(identity.id, 0, libc::IPC_SET, &raw mut info) }).map(drop)
}

/// Removes a set.
///
/// # Errors
/// As semctl(2).
pub fn remove(id: i32) -> Result<(), Errno> {
    // SAFETY: IPC_RMID takes no argument.
    Errno::result(unsafe { libc::semctl(id, 0, libc::IPC_RMID) }).map(drop)
}

/// Values of the `count` semaphores of a set.
///
/// # Errors
/// As semctl(2).
pub fn values(id: i32, count: i32) -> Result<Vec<u16>, Errno> {
    let mut values = vec![0u16; count.max(0) as usize];
    // SAFETY: the number of semaphores of a set never changes, and the vector has room for them.
    Errno::result(unsafe { libc::semctl(id, 0, libc::GETALL, values.as_mut_ptr()) })?;
    Ok(values)
}

/// Who last operated on a semaphore; 0: nobody yet.
///
/// # Errors
/// As semctl(2).
pub fn last_user(id: i32, index: i32) -> Result<i32, Errno> {
    // SAFETY: GETPID takes no argument.
    Errno::result(unsafe { libc::semctl(id, index, libc::GETPID) })
}

/// How many threads wait for a semaphore, to grow or to be zero.
///
/// # Errors
/// As semctl(2).
pub fn waiting(id: i32, index: i32) -> Result<i32, Errno> {
    // SAFETY: neither takes an argument.
    let count = |what| Errno::result(unsafe { libc::semctl(id, index, what) });
    Ok(count(libc::GETNCNT)? + count(libc::GETZCNT)?)
}

/// Sets a value; whatever processes would have undone of it is forgotten.
///
/// # Errors
/// As semctl(2).
pub fn set_value(id: i32, index: i32, value: u16) -> Result<(), Errno> {
    // SAFETY: SETVAL takes a number.
    Errno::result(unsafe { libc::semctl(id, index, libc::SETVAL, i32::from(value)) }).map(drop)
}

/// `semop(2)`.
///
/// # Errors
/// As semop(2).
pub fn operate(id: i32, operations: &[Operation]) -> Result<(), Errno> {
    let convert = |operation: &Operation| libc::sembuf {
        sem_num: operation.number,
        sem_op: operation.change,
        sem_flg: operation.flags,
    };
    let mut operations: Vec<libc::sembuf> = operations.iter().map(convert).collect();
    // SAFETY: the array is live for the call.
    Errno::result(unsafe { libc::semop(id, operations.as_mut_ptr(), operations.len()) }).map(drop)
}

/// A call that fails with ERANGE if the caller's adjustment is `bound` or more, and with EAGAIN
/// otherwise. `value`: that of the semaphore.
pub fn question(number: u16, value: u16, bound: i32) -> Vec<Operation> {
    let mut left = VALUE_MAX + 1 - bound;
    let mut operations = Vec::new();
    if i32::from(value) < VALUE_MAX {
        operations.push(Operation::new(number, VALUE_MAX - i32::from(value), 0));
    }
    while left > 0 {
        let step = left.min(VALUE_MAX);
        operations.push(Operation::new(number, -step, UNDO));
        operations.push(Operation::new(number, step, 0));
        left -= step;
    }
    // Nothing is as high as that: here the call ends and is undone.
    operations.push(Operation::new(number, ADJUSTMENT_MIN, 0));
    operations
}

/// The adjustment of who answers questions: `ask` has it make the call, and says whether it failed
/// with ERANGE.
///
/// # Errors
/// Those of `ask`.
pub fn find_adjustment<E>(
    number: u16,
    value: u16,
    mut ask: impl FnMut(&[Operation]) -> Result<bool, E>,
) -> Result<i16, E> {
    let mut is_at_least = |bound| ask(&question(number, value, bound));
    // Nearly always nothing.
    let (mut low, mut high) = match (is_at_least(0)?, is_at_least(1)?) {
        (true, false) => return Ok(0),
        (_, true) => (1, VALUE_MAX),
        (false, _) => (ADJUSTMENT_MIN, -1),
    };
    while low < high {
        let middle = low + (high - low + 1) / 2;
        if is_at_least(middle)? {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Ok(low as i16)
}

/// Calls, one after the other, that leave a semaphore with its value and the caller with an
/// adjustment more.
pub fn adjusting(number: u16, value: u16, adjustment: i16) -> Vec<[Operation; 2]> {
    let value = i32::from(value);
    let mut left = i32::from(adjustment);
    let mut calls = Vec::new();
    while left != 0 {
        // What is undone is the opposite of what was done.
        let room = value.max(VALUE_MAX - value);
        let step = -left.clamp(-room, room);
        let [done, back] = [Operation::new(number, step, UNDO), Operation::new(number, -step, 0)];
        let fits = (0..=VALUE_MAX).contains(&(value + step));
        calls.push(if fits { [done, back] } else { [back, done] });
        left += step;
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A set that is removed with its test.
    struct Set(i32);

    impl Set {
        fn of(values: &[u16]) -> Self {
            let set = Self(create(libc::IPC_PRIVATE, values.len(), 0o600).unwrap());
            for (index, value) in values.iter().enumerate() {
                set_value(set.0, index as i32, *value).unwrap();
            }
            set
        }

        fn ask(&self, operations: &[Operation]) -> Result<bool, Errno> {
            match operate(self.0, operations) {
                Err(Errno::ERANGE) => Ok(true),
                Err(Errno::EAGAIN) => Ok(false),
                other => panic!("{other:?} to {operations:?}"),
            }
        }
    }

    impl Drop for Set {
        fn drop(&mut self) {
            let _ = remove(self.0);
        }
    }

    const CASES: [(u16, i16); 12] = [
        (0, 0),
        (5, 0),
        (32_767, 0),
        (3, 7),
        (0, 1),
        (0, -1),
        (32_767, -1),
        (1, 32_767),
        (16_000, 32_767),
        (16_384, -32_768),
        (0, -32_768),
        (32_767, -12_345),
    ];

    #[test]
    fn adjustments_are_made_and_found_out_and_values_stay() {
        for (value, adjustment) in CASES {
            let set = Set::of(&[9, value]);
            for call in adjusting(1, value, adjustment) {
                operate(set.0, &call).unwrap();
            }
            let found = find_adjustment(1, value, |operations| set.ask(operations));
            assert_eq!(found, Ok(adjustment), "value {value}");
            assert_eq!(find_adjustment(0, 9, |operations| set.ask(operations)), Ok(0));
            assert_eq!(values(set.0, 2), Ok(vec![9, value]), "adjustment {adjustment}");
        }
    }

    #[test]
    fn what_was_done_with_undo_is_found_out() {
        let set = Set::of(&[10]);
        operate(set.0, &[Operation { number: 0, change: -4, flags: UNDO }]).unwrap();
        assert_eq!(find_adjustment(0, 6, |operations| set.ask(operations)), Ok(4));
    }
}
