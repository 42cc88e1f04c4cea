//! inotify(7).

use super::RawPath;
use super::check::{Around, Result, check, is_path};
use super::kind::FileState;
use serde::{Deserialize, Serialize};

/// `inotify_init(2)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InotifyV1 {
    pub watches: Vec<InotifyWatchV1>,
}

/// `inotify_add_watch(2)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InotifyWatchV1 {
    pub wd: i32,
    pub path: RawPath,
    pub mask: u32,
}

impl FileState for InotifyV1 {
    fn name(&self) -> &'static str {
        "inotify"
    }

    fn check(&self, _: i32, _: &Around<'_>) -> Result<()> {
        check(self.watches.iter().all(|watch| is_path(&watch.path.0)), "a watch on what is not a path")
    }
}
