//! Files below the /proc directory of a process.

use super::object::Object;
use snap_state::{ProcessFileV1, RawPath};

impl Object for ProcessFileV1 {
    fn path_of_process(&self) -> Option<&RawPath> {
        Some(&self.path)
    }
}
