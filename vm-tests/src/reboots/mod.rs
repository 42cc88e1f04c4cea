//! True reboots: virtual machines with kernels of their own, from the installation of the package
//! to its purge.
//!
//! A new life is a function here or beside and a line in [`LIVES`]; a new service is a line in
//! `subject.rs` and what it needs in `root.rs`.

mod broken;
mod groups;
mod hung;
mod lives;
mod root;
mod steps;
mod subject;
mod upgraded;

use anyhow::{Context as _, Result};
use test_frame::{Checks, Need, Once, Test, When};

use crate::machine::{Accelerator, Kernel};
use crate::roots::sweep;
use crate::{host, needs, package};
use steps::Parcel;

/// What happens to one machine.
struct Life {
    /// Says what is shown.
    name: &'static str,
    /// Only with `--full`.
    long: bool,
    run: fn(&Parcel, &mut Checks) -> Result<()>,
}

const LIVES: &[Life] = &[
    Life { name: "life_on_debian_13", long: false, run: lives::debian_13 },
    Life { name: "life_on_debian_12_with_a_power_cut", long: false, run: lives::debian_12 },
    Life { name: "images_on_pmem_with_dax", long: false, run: lives::pmem },
    Life { name: "what_is_missing_at_a_boot", long: false, run: broken::missing },
    Life { name: "a_guest_that_hangs", long: false, run: hung::in_its_boot },
    Life { name: "systemd_is_upgraded", long: true, run: upgraded::systemd },
    Life { name: "images_on_a_virtio_disk", long: true, run: lives::virtio_blk },
    Life { name: "matrix_debian_13_on_kernel_6.1", long: true, run: lives::trixie_on_bookworm_kernel },
    Life { name: "matrix_debian_12_on_kernel_6.12", long: true, run: lives::bookworm_on_trixie_kernel },
    Life { name: "matrix_debian_13_on_the_kernel_of_sid", long: true, run: lives::trixie_on_sid_kernel },
    Life { name: "matrix_sid", long: true, run: lives::sid },
];

/// All lives.
pub fn tests() -> Vec<Test> {
    let parcel = Once::new(|| {
        needs::install_for_machines()?;
        sweep()?;
        let parcel = Parcel::prepare(&package::build()?)?;
        let kernel = Kernel::of(&root::recipe("trixie")?)?;
        println!("{}\nguests run on {}", host::describe(), Accelerator::probe(&kernel)?);
        Ok(parcel)
    });
    let test = |life: &'static Life| {
        let parcel = parcel.clone();
        let live = move |checks: &mut Checks| (life.run)(parcel.get()?, checks).context("before its end");
        let test = Test::alone(format!("machines/{}", life.name), &[Need::Root, Need::Machine], live);
        test.when(if life.long { When::Full } else { When::Always })
    };
    LIVES.iter().map(test).collect()
}
