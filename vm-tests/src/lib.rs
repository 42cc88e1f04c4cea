//! Root file systems, containers, scenarios and the demo: fastboot as an administrator meets it.
//!
//! Runs the built binaries and reads their JSON; links no other crate of the workspace but the
//! frame of all tests. A test here boots a real Debian under systemd-nspawn, in a throw-away copy
//! of a cached root, and asks real servers real questions.

#![forbid(unsafe_code)]

pub mod bare;
pub mod bench;
pub mod boots;
pub mod client;
pub mod container;
pub mod daemons;
pub mod dbus;
pub mod demo;
pub mod evidence;
pub mod fast_restart;
pub mod fastboot;
pub mod golden;
pub mod host;
pub mod kernel_state;
pub mod layers;
pub mod machine;
pub mod needs;
pub mod operator;
pub mod package;
pub mod randomness;
pub mod reboots;
pub mod registry;
pub mod roots;
pub mod rust_tests;
pub mod scenarios;
pub mod service;
pub mod shipped;
pub mod site;
pub mod source;
pub mod stats;
pub mod units;
pub mod verify;
