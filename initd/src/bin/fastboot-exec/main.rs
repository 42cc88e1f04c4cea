//! The shim: stands in for a service, asks for a restored one, and becomes the service where there
//! is none.
//!
//! Without Rust's own start-up code, which would ignore SIGPIPE and open descriptors: the program
//! that is started cold must find everything as systemd has set it up.
#![no_main]

mod sys;
