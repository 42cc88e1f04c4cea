//! The restore daemon.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use image_store::{CatalogueEntry, DEFAULT_ROOT, ReasonCode, Store, fault};
use initd::armed::{Decisions, UnitDecision};
use initd::first_start::FirstStarts;
use initd::peer::ShimIdentity;
use initd::server::Server;
use initd::status::{StatusFile, UnitStatus};
use initd::sys::socket::take_activation_socket;
use initd::validate::Verdicts;
use initd::zygote::Zygote;
use initd::{boot, journal, pid_max};

const RUN_DIR: &str = "/run/fastboot";
const SHIM: &str = "/usr/lib/fastboot/fastboot-exec";
/// Images are checked side by side: one thread waits for the device while another computes.
const VALIDATORS: usize = 4;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            journal::warning(format_args!("{error}; all services start cold"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    fault::point("initd.start")?;
    let listener = take_activation_socket()
        .ok_or_else(|| io::Error::other("to be started through fastboot-initd.socket"))?;
    // Before any thread exists.
    let zygote = Zygote::start()?;
    if let Err(error) = pid_max::raise() {
        journal::warning(format_args!("pid_max: {error}; services with high process ids start cold"));
    }
    let server = Arc::new(prepare(zygote)?);
    start_validators(&server);
    server.serve(&listener)
}

fn prepare(zygote: Zygote) -> io::Result<Server> {
    let run_dir = Path::new(RUN_DIR);
    let boot_id = boot::boot_id();
    let status = StatusFile::open(run_dir, &boot_id);
    let first_starts = FirstStarts::open(run_dir)?;
    let shim = ShimIdentity::collect(Path::new(SHIM))?;
    let store = Store::open(DEFAULT_ROOT);
    let decisions = Decisions::load(run_dir)?;
    enter_cold(&status, &decisions, &first_starts);
    let catalogue = store.load().map_err(io::Error::other)?;
    let mut units: HashMap<String, (UnitDecision, CatalogueEntry)> = HashMap::new();
    for decision in decisions.units.into_iter().filter(|decision| decision.armed) {
        match catalogue.by_image_id(decision.image_id) {
            Some(entry) => drop(units.insert(decision.unit.clone(), (decision, entry.clone()))),
            None => {
                journal::notice(format_args!("{}: its image was removed; starting it cold", decision.unit))
            }
        }
    }
    let verdicts = Verdicts::new(units.keys().map(String::as_str));
    Ok(Server {
        store,
        units,
        verdicts,
        zygote,
        first_starts,
        status,
        shim,
        boot_id,
        root: PathBuf::from("/"),
        connections: AtomicUsize::new(0),
    })
}

/// Units that the generator has left alone are part of the picture too.
fn enter_cold(status: &StatusFile, decisions: &Decisions, first_starts: &FirstStarts) {
    // Known from an earlier start of ours in this boot, then they have been logged as well.
    let is_new = |decision: &&UnitDecision| !decision.armed && !status.has(&decision.unit);
    for decision in decisions.units.iter().filter(is_new).filter(|_| !decisions.is_logged) {
        let reason = decision.reason.as_deref().unwrap_or_default();
        journal::notice(format_args!("{}: image not used: {reason}; starting it cold", decision.unit));
    }
    let cold = decisions.units.iter().filter(|decision| !decision.armed).map(|decision| UnitStatus {
        image_id: Some(decision.image_id.to_string()),
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

/// The largest first: they take longest, and who asks for a small one meanwhile checks it itself.
fn start_validators(server: &Arc<Server>) {
    let mut units: Vec<(u64, String)> =
        server.units.values().map(|(_, entry)| (entry.len_bytes, entry.unit.clone())).collect();
    units.sort();
    let queue = Arc::new(std::sync::Mutex::new(units));
    for _ in 0..VALIDATORS {
        let (server, queue) = (Arc::clone(server), Arc::clone(&queue));
        let validator = move || {
            while let Some((_, unit)) = queue.lock().ok().and_then(|mut units| units.pop()) {
                server.validate(&unit);
            }
        };
        if let Err(error) = std::thread::Builder::new().spawn(validator) {
            journal::warning(format_args!("no thread for checking images: {error}; units check their own"));
        }
    }
}
