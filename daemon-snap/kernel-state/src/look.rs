//! Looking at everything that a service may change.

use crate::view::View;
use crate::{Place, filter, local, mounts, network};
use snap_error::Result;

impl View {
    /// Looks at what a service at this place may change. Nothing, for one that may not do anything.
    ///
    /// # Errors
    /// When the kernel does not tell what it should.
    pub fn of(place: &Place) -> Result<Self> {
        let mut view = Self::empty(place.network_id());
        if place.may_change_network() {
            network::look(place, &mut view)?;
            filter::look(place, &mut view)?;
        }
        if place.may_mount() {
            mounts::look(place, &mut view);
            if place.is_in_our_mounts() {
                local::look(&mut view);
            }
        }
        Ok(view)
    }
}
