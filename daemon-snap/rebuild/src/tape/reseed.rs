//! The page that answers in the place of getpid(2), and the words that lead to it.

use super::area::{Area, Region, find_gap};
use super::env::Reseed;
use super::op::{Op, Step, Want};
use super::sequence::Sequence;
use super::x86_64;
use snap_error::{RestoreFault, Result};
use snap_state::PAGE_BYTES;
use std::ops::Range;

/// As the area of the tape is named.
const NAME: &std::ffi::CStr = c"fastboot";

/// A plan with a place for its page.
#[derive(Clone, Copy, Debug)]
pub struct Placed<'a> {
    plan: &'a Reseed,
    page: u64,
}

impl<'a> Placed<'a> {
    /// The page goes where it is, or to a place that `taken` leaves free, which is taken then.
    ///
    /// # Errors
    /// There is no such place.
    pub fn find(plan: &'a Reseed, taken: &mut Vec<Range<u64>>) -> Result<Self> {
        let page = match plan.page {
            Some(page) => page,
            None => {
                let page = find_gap(taken, PAGE_BYTES)
                    .ok_or(RestoreFault::NoRoomForTape { len_bytes: PAGE_BYTES })?;
                taken.push(page..page + PAGE_BYTES);
                page
            }
        };
        Ok(Self { plan, page })
    }

    /// Fills it and has the words lead there. All memory of the process is mapped and loaded, and
    /// writable wherever pages were loaded: the page of an earlier restore too.
    ///
    /// # Errors
    /// The area is full.
    pub fn ops(&self, area: &mut Area) -> Result<Sequence> {
        let mut seq = Sequence::default();
        let (page, is_new) = (self.page, self.plan.page.is_none());
        if is_new {
            let prot = (libc::PROT_READ | libc::PROT_WRITE) as u64;
            let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE) as u64;
            let args = [page, PAGE_BYTES, prot, flags, u64::MAX, 0];
            seq.push(Op::syscall(Step::Reseed, libc::SYS_mmap, &args, Want::Exactly(page as i64)));
        }
        let content = x86_64::answer_page(self.plan.key);
        let words = content.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_ne_bytes));
        seq.extend((page..).step_by(8).zip(words).map(|(at, word)| Op::store(Step::Reseed, at, word)));
        if is_new {
            let args = [page, PAGE_BYTES, (libc::PROT_READ | libc::PROT_EXEC) as u64];
            seq.push(Op::syscall(Step::Reseed, libc::SYS_mprotect, &args, Want::Exactly(0)));
            // Not every kernel has names (CONFIG_ANON_VMA_NAME).
            let name = area.put(Region::Drop, NAME.to_bytes_with_nul(), 1)?;
            let args = [libc::PR_SET_VMA as u64, libc::PR_SET_VMA_ANON_NAME as u64, page, PAGE_BYTES, name];
            seq.push(Op::syscall(Step::Reseed, libc::SYS_prctl, &args, Want::Anything));
        }
        let answer = page + x86_64::ANSWER_AT;
        seq.extend(self.plan.slots.iter().map(|slot| Op::store(Step::Reseed, *slot, answer)));
        Ok(seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_page_avoids_what_is_taken_and_one_that_is_there_stays() {
        let plan = Reseed { slots: vec![0x5000], page: None, key: 7 };
        let mut taken = vec![0x1_0000..0x2_0000, 0x2_0000..0x7fff_0000_0000];
        let placed = Placed::find(&plan, &mut taken).unwrap();
        assert!(placed.page >= 0x7fff_0000_0000 && taken.len() == 3);
        assert_eq!(Placed::find(&plan, &mut taken).unwrap().page % PAGE_BYTES, 0);
        let there = Reseed { page: Some(0x2_0000), ..plan };
        let mut taken = vec![0x1_0000..0x2_0000, 0x2_0000..0x7fff_0000_0000];
        assert_eq!(Placed::find(&there, &mut taken).unwrap().page, 0x2_0000);
        assert_eq!(taken.len(), 2);
    }

    #[test]
    fn a_page_is_known_by_its_mark_and_has_its_key() {
        let mut page = x86_64::answer_page(0x4000_0001);
        assert!(page.len() > x86_64::ANSWER_AT as usize && page.len().is_multiple_of(8));
        // endbr64: whoever calls through a word may only arrive there.
        assert_eq!(page[x86_64::ANSWER_AT as usize..][..4], [0xf3, 0x0f, 0x1e, 0xfa]);
        assert_eq!(x86_64::answer_key(&page), Some(0x4000_0001));
        page[0] ^= 1;
        assert_eq!(x86_64::answer_key(&page), None);
        assert_eq!(x86_64::answer_key(&page[..3]), None);
    }
}
