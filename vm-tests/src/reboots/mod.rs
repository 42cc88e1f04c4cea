//! True reboots: virtual machines with kernels of their own, from the installation of the package to its purge.
//!
//! A new life is a function here or beside and a line in [`LIVES`]; a new service is a line in `subject.rs` and what it
//! needs in `root.rs`.

mod broken;
mod groups;
mod hung;
mod lives;
mod root;
mod site;
mod subject;
mod upgraded;

use std::time::Instant;

use anyhow::Result;

use crate::checks::Checks;
use crate::machine::Kernel;
use crate::roots::sweep;
use crate::{host, needs, package};
use site::Lab;

/// What happens to one machine.
struct Life {
    /// Says what is shown; `--only` looks for words in it.
    name: &'static str,
    /// Only with `--full`.
    long: bool,
    run: fn(&Lab, &mut Checks) -> Result<()>,
}

const LIVES: &[Life] = &[
    Life { name: "life on Debian 13", long: false, run: lives::debian_13 },
    Life { name: "life on Debian 12, with a power cut", long: false, run: lives::debian_12 },
    Life { name: "images on pmem with DAX", long: false, run: lives::pmem },
    Life { name: "what is missing at a boot", long: false, run: broken::missing },
    Life { name: "a guest that hangs", long: false, run: hung::in_its_boot },
    Life { name: "systemd is upgraded", long: true, run: upgraded::systemd },
    Life { name: "images on a virtio disk", long: true, run: lives::virtio_blk },
    Life { name: "matrix: Debian 13 on kernel 6.1", long: true, run: lives::trixie_on_bookworm_kernel },
    Life { name: "matrix: Debian 12 on kernel 6.12", long: true, run: lives::bookworm_on_trixie_kernel },
    Life { name: "matrix: Debian 13 on sid's kernel", long: true, run: lives::trixie_on_sid_kernel },
    Life { name: "matrix: sid", long: true, run: lives::sid },
];

/// Live the lives whose name has `only` in it (without: those that are not long, or all with `full`).
///
/// # Errors
/// QEMU cannot be had; fastboot does not build.
pub fn run(only: Option<&str>, full: bool) -> Result<Checks> {
    let mut checks = Checks::default();
    needs::install_for_machines()?;
    sweep()?;
    let lab = Lab::prepare(&package::build()?)?;
    println!("{}", host::describe());
    println!("guests run on {}", crate::machine::Accelerator::probe(&Kernel::of(&root::recipe("trixie")?)?)?);
    for life in LIVES.iter().filter(|life| only.map_or(full || !life.long, |only| life.name.contains(only))) {
        println!("{}", life.name);
        let started = Instant::now();
        let lived = (life.run)(&lab, &mut checks);
        let name = format!("{}: to its end, in {:.0} s", life.name, started.elapsed().as_secs_f64());
        checks.note(name, lived);
    }
    Ok(checks)
}

/// Whether some life's name has `text` in it.
pub fn any_named(text: &str) -> bool {
    LIVES.iter().any(|life| life.name.contains(text))
}
