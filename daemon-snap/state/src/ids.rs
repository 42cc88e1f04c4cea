//! Newtypes where worlds meet. No system calls here.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id! {
    /// Process (tgid) or thread id in the PID namespace of the recorded tree, which is also ours.
    Pid(i32)
}
id! {
    /// A descriptor number inside a recorded process; never one of ours.
    TargetFd(i32)
}
id! {
    /// An open file description of the recorded tree: index into [`super::TreeV1::files`].
    FileId(u32)
}
id! {
    /// A file, memfd or shared memory object: index into [`super::TreeV1::inodes`].
    InodeId(u32)
}
id! {
    /// A pipe (both ends): index into [`super::TreeV1::pipes`].
    PipeId(u32)
}
id! {
    /// A seccomp filter program: index into [`super::TreeV1::seccomp_filters`].
    FilterId(u32)
}

macro_rules! index {
    ($($name:ident),*) => {
        $(impl $name {
            /// Its place in the table of a tree that it belongs to.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        })*
    };
}

index!(FileId, InodeId, PipeId, FilterId);

/// An address in a recorded process; never dereferenced by us.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Addr(pub u64);

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A path as the kernel gives it: bytes, absolute, not necessarily UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RawPath(pub Vec<u8>);

impl RawPath {
    /// The path for system calls.
    pub fn as_path(&self) -> &std::path::Path {
        use std::os::unix::ffi::OsStrExt;
        std::path::Path::new(std::ffi::OsStr::from_bytes(&self.0))
    }

    /// The path from what a system call returned.
    pub fn from_path(path: &std::path::Path) -> Self {
        use std::os::unix::ffi::OsStrExt;
        Self(path.as_os_str().as_bytes().to_vec())
    }
}

impl fmt::Debug for RawPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Display for RawPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}
