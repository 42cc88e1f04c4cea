//! The boot side: `fastboot-exec` asks, `fastboot-initd` answers from an image or says why not.
//!
//! Processes and where they run: the shim in the unit's sandbox; initd with threads, which
//! therefore never forks; the zygote, forked from initd while it had one thread; one worker per
//! restore, forked from the zygote.
//!
//! What may not live here: how a process tree is made again (that is `snap_rebuild`), and what is
//! on disk (`image_store`).

pub mod admission;
pub mod attempt;
pub mod boot;
pub mod caller;
pub mod disk_use;
pub mod dynamic_user;
pub mod hooks;
pub mod images;
pub mod journal;
pub mod lanes;
pub mod manager;
pub mod notify;
pub mod once;
pub mod peer;
pub mod pid_file;
pub mod pid_max;
pub mod probation;
pub mod protocol;
pub mod server;
pub mod shim;
pub mod slots;
pub mod standby;
pub mod store_device;
pub mod store_wait;
pub mod surroundings;
pub mod sys;
pub mod systemd;
pub mod timeline;
pub mod unit_cgroup;
pub mod wire;
pub mod worker;
pub mod zygote;
