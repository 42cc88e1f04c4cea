//! What is asked before anything is touched: whether the services that were named are there, and
//! how long each will be away.

use crate::unit::Systemd;
use image_store::Catalogue;
use serde::Serialize;
use snap_error::{Error, Result};

/// A service that is about to be taken.
#[derive(Clone, Debug, Serialize)]
pub struct Before {
    pub unit: String,
    pub absence: Absence,
}

/// How long nobody serves in its place, in milliseconds; what was not measured is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Absence {
    /// The restart before it is taken.
    pub cold_ms: Option<f64>,
    /// The restart from its new image.
    pub restore_ms: Option<f64>,
}

/// Asks systemd about services, by their full names.
///
/// # Errors
/// Those of the bus. Names that systemd does not know are in the second list.
pub fn preflight(names: &[String], catalogue: &Catalogue) -> Result<(Vec<Before>, Vec<String>)> {
    let systemd = Systemd::connect()?;
    let (mut found, mut unknown) = (Vec::new(), Vec::new());
    for name in names {
        let properties = match systemd.properties(name) {
            Err(Error::NoUnit(_)) => {
                unknown.push(name.clone());
                continue;
            }
            properties => properties?,
        };
        let service = catalogue.newest(&properties.id).map(|(_, entry)| &entry.service);
        let took_us = properties.active_enter_us.checked_sub(properties.inactive_exit_us);
        let said_ms = took_us.filter(|_| properties.waits_for_word()).map(|us| us as f64 / 1e3);
        let absence = Absence {
            cold_ms: service.and_then(|service| service.cold_start_ms).or(said_ms),
            restore_ms: service.and_then(|service| service.restore_ms),
        };
        found.push(Before { unit: properties.id, absence });
    }
    Ok((found, unknown))
}
