//! How many starts are answered at one time: in all, of one user, and of one unit.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Starts that are answered at one time. More are told to start cold.
const MOST: usize = 512;
/// Of these by one user other than root: several services may run as the same one.
const MOST_OF_A_USER: usize = 128;
/// By one unit: a start, and the one that asks again because initd died over it.
const MOST_OF_A_UNIT: usize = 2;

/// Starts that are being answered.
#[derive(Debug, Default)]
pub struct Slots {
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_user: HashMap<u32, usize>,
    by_unit: HashMap<String, usize>,
}

/// One of them, as long as it lives.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    uid: u32,
    unit: String,
}

impl Slots {
    /// Take a slot; `None` when there is none for this user and unit.
    pub fn enter(self: &Arc<Self>, uid: u32, unit: &str) -> Option<Slot> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_user = taken.by_user.get(&uid).copied().unwrap_or(0);
        let of_unit = taken.by_unit.get(unit).copied().unwrap_or(0);
        if taken.all >= MOST || uid != 0 && of_user >= MOST_OF_A_USER || of_unit >= MOST_OF_A_UNIT {
            return None;
        }
        taken.all += 1;
        taken.by_user.insert(uid, of_user + 1);
        taken.by_unit.insert(unit.to_owned(), of_unit + 1);
        Some(Slot { slots: Arc::clone(self), uid, unit: unit.to_owned() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        leave(&mut taken.by_user, &self.uid);
        leave(&mut taken.by_unit, &self.unit);
    }
}

fn leave<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_take_all_slots_and_one_unit_has_two() {
        let slots = Arc::new(Slots::default());
        let of_one: Vec<Slot> = (0..MOST).map_while(|n| slots.enter(1000, &format!("{n}.service"))).collect();
        assert_eq!(of_one.len(), MOST_OF_A_USER);
        let unit: Vec<Slot> = (0..9).map_while(|_| slots.enter(33, "a.service")).collect();
        assert_eq!(unit.len(), MOST_OF_A_UNIT);
        let root: Vec<Slot> = (0..MOST).map_while(|n| slots.enter(0, &format!("r{n}.service"))).collect();
        assert_eq!(of_one.len() + unit.len() + root.len(), MOST);
        assert!(slots.enter(0, "one-more.service").is_none());
    }

    #[test]
    fn a_slot_comes_back_also_when_its_thread_panics() {
        let slots = Arc::new(Slots::default());
        for _ in 0..2 * MOST {
            let slot = slots.enter(33, "a.service").unwrap();
            let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
                let _slot = slot;
                std::panic::resume_unwind(Box::new(()));
            }));
            assert!(answer.is_err());
        }
        assert!(slots.taken.lock().unwrap().by_user.is_empty());
    }
}
