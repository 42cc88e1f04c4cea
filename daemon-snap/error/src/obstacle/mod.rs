//! What stands against a dump, as values: a code for machines, whether it passes by itself, fields,
//! and a sentence that is made last. Nothing reads the sentence again.
//!
//! Every code is explained in `docs/reasons.md`, which a test compares with the lists here.

mod bus;
mod descriptor;
mod file;
mod kernel;
mod keyring;
mod memory;
mod process;
mod ring;
mod sandbox;
mod socket;
mod unit;

pub use bus::BusObstacle;
pub use descriptor::{DescriptorObstacle, InhibitorFlaw, LogindObject, MarkedObject};
pub use file::FileObstacle;
pub use kernel::KernelObstacle;
pub use keyring::{KeyringObstacle, KeyringPlace};
pub use memory::MemoryObstacle;
pub use process::{ProcessObstacle, SharedResource};
pub use ring::RingObstacle;
pub use sandbox::SandboxObstacle;
pub use socket::{SocketKind, SocketObstacle, TcpState};
pub use unit::UnitObstacle;

use std::fmt;

/// Families whose codes are their own.
macro_rules! families {
    ($($name:ident($family:ident),)*) => {
        /// Why something of a tree cannot be carried.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Obstacle {
            $($name($family),)*
            /// Memory of a ring that is refused; its code is that of the ring.
            MemoryOfRing(RingObstacle),
            /// A directory or a program that a process is in or executes; its code is that of the
            /// file.
            As { role: Role, obstacle: Box<Obstacle> },
            /// Something that lies in a queue and has been read by nobody. It is read sooner or
            /// later.
            Unread(Box<Obstacle>),
            /// Something of which only systemd has a descriptor.
            OnlyStored { obstacle: Box<Obstacle>, name: String },
        }

        impl Obstacle {
            /// Every code, and whether what it stands for passes by itself.
            pub fn all() -> impl Iterator<Item = (&'static str, bool)> {
                const WRAPPED: &[(&str, bool)] = &[(UNREAD_DESCRIPTOR, true), (ONLY_STORED, false)];
                let lists: &[&[(&'static str, bool)]] = &[$($family::ALL,)* WRAPPED];
                lists.iter().flat_map(|list| list.iter().copied())
            }

            /// The stable name for machines.
            pub fn code(&self) -> &'static str {
                match self {
                    $(Self::$name(one) => one.code(),)*
                    Self::MemoryOfRing(ring) => ring.code(),
                    Self::As { obstacle, .. } => obstacle.code(),
                    Self::Unread(_) => UNREAD_DESCRIPTOR,
                    Self::OnlyStored { .. } => ONLY_STORED,
                }
            }

            /// Whether it comes and goes: a moment later, or after a restart, it may not be there.
            pub fn passes(&self) -> bool {
                match self {
                    $(Self::$name(one) => one.passes(),)*
                    Self::MemoryOfRing(ring) => ring.passes(),
                    Self::As { obstacle, .. } | Self::OnlyStored { obstacle, .. } => obstacle.passes(),
                    Self::Unread(_) => true,
                }
            }
        }

        /// Completes "fd 7 is …" or "pid 812 has …".
        impl fmt::Display for Obstacle {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name(one) => one.fmt(f),)*
                    Self::MemoryOfRing(ring) => write!(f, "memory of {ring}"),
                    Self::As { role, obstacle } => write!(f, "as {role} {obstacle}"),
                    Self::Unread(obstacle) => write!(f, "a unix socket with an unread descriptor, {obstacle}"),
                    Self::OnlyStored { obstacle, name } => {
                        write!(f, "{obstacle} that only systemd keeps (FDNAME={name})")
                    }
                }
            }
        }

        $(impl From<$family> for Obstacle {
            fn from(one: $family) -> Self {
                Self::$name(one)
            }
        })*
    };
}

const UNREAD_DESCRIPTOR: &str = "unread-descriptor";
const ONLY_STORED: &str = "only-stored";

families! {
    Process(ProcessObstacle),
    Sandbox(SandboxObstacle),
    Memory(MemoryObstacle),
    File(FileObstacle),
    Descriptor(DescriptorObstacle),
    Socket(SocketObstacle),
    Bus(BusObstacle),
    Ring(RingObstacle),
    Keyring(KeyringObstacle),
}

/// What a file is to a process beside what it has open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    WorkingDirectory,
    RootDirectory,
    Executable,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WorkingDirectory => "working directory",
            Self::RootDirectory => "root directory",
            Self::Executable => "executable",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snap_state::{Pid, RawPath};
    use std::collections::HashSet;

    #[test]
    fn codes_are_unique_and_in_kebab_case() {
        let mut seen = HashSet::new();
        for (code, _) in Obstacle::all() {
            assert!(seen.insert(code), "{code} stands for two obstacles");
            let is_word = |word: &str| {
                !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            };
            assert!(code.split('-').all(is_word), "{code}");
        }
    }

    #[test]
    fn connections_pass_and_rings_stay() {
        let remote = Some("127.0.0.1:80".parse().unwrap());
        let connection = SocketObstacle::TcpConnection { state: TcpState::Established, remote };
        assert_eq!(connection.to_string(), "an established TCP connection to 127.0.0.1:80");
        assert!(Obstacle::from(connection).passes());
        assert!(Obstacle::from(SocketObstacle::ListenerPending).passes());
        assert!(!Obstacle::from(RingObstacle::RegisteredFiles).passes());
        let outside = SocketObstacle::UnixPeerOutside { name: b"/run/x".to_vec(), pid: None };
        assert_eq!(outside.to_string(), "a unix socket connected to /run/x outside the tree");
        assert!(!Obstacle::from(outside).passes());
    }

    #[test]
    fn a_path_with_the_words_of_another_obstacle_changes_nothing() {
        let path = RawPath(b"/srv/unread/established TCP connection".to_vec());
        let deleted = Obstacle::from(FileObstacle::DeletedDirectory { path });
        assert!(!deleted.passes());
        assert_eq!(deleted.code(), "deleted-directory");
    }

    #[test]
    fn what_is_wrapped_passes_as_its_content_does() {
        let boxed = |one: RingObstacle| Box::new(Obstacle::from(one));
        for (ring, passes) in [(RingObstacle::InUse, true), (RingObstacle::Restricted, false)] {
            let code = ring.code();
            let memory = Obstacle::MemoryOfRing(ring.clone());
            assert_eq!((memory.code(), memory.passes()), (code, passes));
            let stored = Obstacle::OnlyStored { obstacle: boxed(ring.clone()), name: "a".into() };
            assert_eq!((stored.code(), stored.passes()), (ONLY_STORED, passes));
            let inside = Obstacle::As { role: Role::Executable, obstacle: boxed(ring.clone()) };
            assert_eq!((inside.code(), inside.passes()), (code, passes));
            // Whoever reads the message takes it out of the queue.
            assert!(Obstacle::Unread(boxed(ring)).passes());
        }
    }

    #[test]
    fn sentences_name_what_is_wrapped() {
        let gone = Obstacle::from(FileObstacle::DeletedDirectory { path: RawPath(b"/x".to_vec()) });
        let role = Role::WorkingDirectory;
        let of_process = Obstacle::As { role, obstacle: Box::new(gone) };
        assert_eq!(of_process.to_string(), "as working directory a deleted directory (/x)");
        let in_use = Obstacle::MemoryOfRing(RingObstacle::InUse);
        assert_eq!(in_use.to_string(), "memory of an io_uring ring with requests in flight");
        let traced = Obstacle::from(ProcessObstacle::Traced { tracer: Pid(7) });
        assert_eq!(traced.to_string(), "a tracer (pid 7)");
        let many = Obstacle::from(ProcessObstacle::ZombieCoreDump { status: 0x8b });
        assert_eq!(many.to_string(), "ended with a core dump and not been waited for (status 0x8b)");
    }
}
