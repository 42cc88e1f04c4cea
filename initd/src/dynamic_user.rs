//! The user of a unit with `DynamicUser=`, who may be another one in each boot. Its name is in no
//! file that evidence could be taken of, but systemd has given the shim that user.

use image_store::evidence::DYNAMIC_IDS;
use image_store::{ReasonCode, StaleReason};
use snap_state::TreeV1;

/// Whether every dynamic id of the tree is today's; `owner`: user and group of the shim.
///
/// # Errors
/// [`ReasonCode::IdentityChanged`].
pub fn check(tree: &TreeV1, owner: (u32, u32)) -> Result<(), StaleReason> {
    let threads = || tree.processes.iter().flat_map(|process| &process.threads);
    let users = threads().flat_map(|thread| thread.creds.uids);
    let groups = threads().flat_map(|thread| thread.creds.gids);
    check_ids("user", users, owner.0).and_then(|()| check_ids("group", groups, owner.1))
}

fn check_ids(what: &str, mut ids: impl Iterator<Item = u32>, today: u32) -> Result<(), StaleReason> {
    match ids.find(|id| DYNAMIC_IDS.contains(id) && *id != today) {
        None => Ok(()),
        Some(id) => {
            let sentence = format!("the unit's dynamic {what} was {id}, and it is started as {today}");
            Err(StaleReason::new(ReasonCode::IdentityChanged, sentence))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dynamic_ids_have_to_be_the_shims() {
        let is_fine = |ids: &[u32], today| check_ids("user", ids.iter().copied(), today).is_ok();
        assert!(is_fine(&[61200, 61200], 61200));
        assert!(is_fine(&[0, 33, 1000], 0));
        assert!(is_fine(&[33], 61200));
        assert!(!is_fine(&[0, 61200], 61201));
        assert!(!is_fine(&[61200], 0));
    }
}
