//! The restore daemon.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use fastboot_runtime::{
    FirstStarts, GeneratorRecord, RunDir, StatusFile, Trials, UnitDecision, UnitStatus, open_store,
};
use image_store::{DEFAULT_ROOT, ReasonCode, Store, fault};
use initd::admission::{Admission, ServerCell};
use initd::caller::UnitsRoot;
use initd::images::Images;
use initd::journal::OfUnit;
use initd::lanes::Lanes;
use initd::manager::Manager;
use initd::once::{OnceImages, note_boot};
use initd::peer::ShimIdentity;
use initd::server::Server;
use initd::standby::Standby;
use initd::store_wait::{Catalogue, wait_for_catalogue};
use initd::sys::priority::{become_idle, set_nice};
use initd::sys::pulse::Pulse;
use initd::sys::socket::{set_nonblocking, take_activation_socket};
use initd::systemd::{PRIVATE_SOCKET, Systemd};
use initd::zygote::Zygote;
use initd::{boot, disk_use, journal, pid_max};
use snap_policy::SHIM;

/// One waits for the device while another computes. More would get in the way of a boot that reads
/// much itself.
const LOOKERS_AHEAD: usize = 2;
/// Whole boots wait for what initd does, and it is short.
const NICE: i32 = -10;

/// In place of being the restore daemon (`fastboot-boot.service`).
const NOTE_BOOT: &str = "--note-boot";

fn main() -> ExitCode {
    let word = std::env::args_os().nth(1).unwrap_or_default();
    if word == NOTE_BOOT {
        return note();
    }
    if word == "--version" {
        println!("fastboot-initd {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            journal::warning(format_args!("{error}; all services start cold"));
            ExitCode::FAILURE
        }
    }
}

fn note() -> ExitCode {
    if let Err(error) = pid_max::raise() {
        journal::warning(format_args!("pid_max: {error}"));
    }
    let id = fastboot_runtime::boot::current_userspace();
    match note_boot(&open_store(DEFAULT_ROOT), &id) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            journal::warning(format_args!("{error}; what was taken at the last shutdown starts cold"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    fault::point("initd.start")?;
    let listener = take_activation_socket()
        .ok_or_else(|| io::Error::other("to be started through fastboot-initd.socket"))?;
    // Two of us look at it.
    set_nonblocking(&listener)?;
    // Not possible in every container. It only makes a difference when the processors are busy.
    let _ = set_nice(NICE);
    let run_dir = RunDir::default();
    let pulse = Arc::new(Pulse::new()?);
    let standby = Standby::new(listener.try_clone()?, Arc::clone(&pulse));
    // Before any thread exists.
    let zygote = Zygote::start(standby, &run_dir)?;
    if let Err(error) = pid_max::raise() {
        journal::warning(format_args!("pid_max: {error}; services with high process ids start cold"));
    }
    let decisions = GeneratorRecord::load(&run_dir)?
        .ok_or_else(|| io::Error::other("the generator has decided nothing in this boot"))?;
    let boot_id = boot::boot_id();
    let admission = Arc::new(Admission {
        units: UnitsRoot::collect()?,
        armed: decisions.armed(),
        first_starts: FirstStarts::open(&run_dir)?,
        shim: ShimIdentity::collect(Path::new(SHIM))?,
        status: Arc::new(StatusFile::open(&run_dir, &boot_id)),
        slots: Arc::default(),
        pulse,
        server: ServerCell::new()?,
    });
    let accepting = {
        let admission = Arc::clone(&admission);
        let manager = Manager::of_environment();
        std::thread::Builder::new().spawn(move || admission.serve(&listener, manager))?
    };
    let server = Arc::new(prepare(zygote, decisions, &boot_id, &admission)?);
    start_looking_ahead(&server);
    // A chart without it is a chart.
    let _ = std::thread::Builder::new().spawn(move || disk_use::watch(&run_dir, &boot_id));
    admission.server.set(server);
    accepting.join().unwrap_or_else(|_| Err(io::Error::other("nobody takes connections any more")))
}

fn prepare(
    zygote: Zygote,
    decisions: GeneratorRecord,
    boot_id: &str,
    admission: &Admission,
) -> io::Result<Server> {
    enter_cold(&admission.status, &decisions, &admission.first_starts);
    let store = open_store(DEFAULT_ROOT);
    let soft_reboots = decisions.soft_reboots;
    let asked = admission.server.asked();
    if !admission.armed.is_empty()
        && let Catalogue::Missing { waited } = wait_for_catalogue(&store, asked)?
    {
        journal::warning(format_args!(
            "{DEFAULT_ROOT} is not mounted, or empty; after waiting for {} ms all services start cold",
            waited.as_millis()
        ));
    }
    let catalogue = store.load().map_err(io::Error::other)?;
    let userspace_id = boot::userspace_id(boot_id, soft_reboots);
    let once = OnceImages::load(&store, &userspace_id);
    let armed = decisions.units.into_iter().filter(|decision| decision.armed);
    let entries = armed.filter_map(|decision| {
        let of_shutdown = || once.entries().find(|entry| entry.image_id == decision.image_id);
        let entry = catalogue.by_image_id(decision.image_id).or_else(of_shutdown);
        if entry.is_none() {
            OfUnit { unit: &decision.unit, code: Some(ReasonCode::ImageMissing), is_trial: false }
                .notice("its image was removed; starting it cold");
        }
        entry.cloned()
    });
    Ok(Server {
        images: Images::new(Path::new("/"), store.clone(), entries.collect::<Vec<_>>()),
        once,
        store,
        lanes: Lanes::default(),
        trials: Trials::open(&RunDir::default()),
        zygote,
        status: Arc::clone(&admission.status),
        shim: admission.shim.clone(),
        systemd: Systemd::new(Path::new(PRIVATE_SOCKET), soft_reboots > 0),
        userspace_id,
    })
}

/// Units that the generator has left alone are part of the picture too.
fn enter_cold(status: &StatusFile, decisions: &GeneratorRecord, first_starts: &FirstStarts) {
    // Known from an earlier start of ours in this boot, then they have been logged as well. The
    // generator's lines in the kernel log are not found under the name of the unit.
    let is_new = |decision: &&UnitDecision| !decision.armed && !status.has(&decision.unit);
    for decision in decisions.units.iter().filter(is_new) {
        let reason = decision.reason.as_deref().unwrap_or_default();
        let code = decision.reason_code.unwrap_or(ReasonCode::Disabled);
        OfUnit { unit: &decision.unit, code: Some(code), is_trial: false }
            .notice(format_args!("image not used: {reason}; starting it cold"));
    }
    let cold = decisions.units.iter().filter(|decision| !decision.armed).map(|decision| UnitStatus {
        image_id: Some(decision.image_id),
        ..UnitStatus::cold(
            &decision.unit,
            decision.reason_code.unwrap_or(ReasonCode::Disabled),
            decision.reason.as_deref().unwrap_or_default(),
        )
    });
    // Asked, and never answered: initd died over it.
    let asked = first_starts.units().into_iter().filter(|unit| !status.has(unit));
    let lost = asked
        .map(|unit| UnitStatus::cold(&unit, ReasonCode::InitdUnavailable, "initd ended during the restore"));
    if let Err(error) = status.enter(cold.chain(lost)) {
        journal::warning(format_args!("status cannot be written: {error}; `fastboot status` will lack it"));
    }
}

/// What nobody has asked for yet is looked at ahead, by threads that run when nobody else wants to.
fn start_looking_ahead(server: &Arc<Server>) {
    let next = Arc::new(AtomicUsize::new(0));
    for _ in 0..LOOKERS_AHEAD {
        let (server, next) = (Arc::clone(server), Arc::clone(&next));
        let look = move || {
            if let Err(error) = become_idle() {
                return journal::warning(format_args!(
                    "images are not looked at ahead: {error}; restores take longer"
                ));
            }
            // What everybody's start begins with; what it brings into memory is all that counts.
            let _ = std::fs::read(SHIM);
            server.images.look_ahead(&server.lanes, &next);
            server.lanes.wait_idle();
            sweep(&server.store);
        };
        if let Err(error) = std::thread::Builder::new().spawn(look) {
            journal::warning(format_args!("no thread for looking ahead: {error}; restores take longer"));
        }
    }
}

/// What a snapshot that was killed has left goes when nothing else is to be done. One that works
/// now has the lock.
fn sweep(store: &Store) {
    if store.leftover_bytes().is_ok_and(|bytes| bytes > 0)
        && let Ok(_lock) = store.lock()
        && let Err(error) = store.sweep()
    {
        journal::notice(format_args!("{error}; parts of images that nobody uses stay"));
    }
}
