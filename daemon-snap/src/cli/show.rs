//! `fastboot show`.

use super::common::{StoreArgs, mb, table, unit_names};
use anyhow::Context as _;
use image_store::evidence::StartEvidence;
use image_store::{CatalogueEntry, EvidenceV2, FileKind, Observation, Rule, SectionKind, Source};
use serde::Serialize;
use snap_state::TreeV1;
use std::collections::BTreeMap;

/// Show what an image holds and what it depends on
#[derive(Debug, clap::Args)]
pub struct Args {
    unit: String,
    /// Print everything that is recorded of its processes, as JSON; what is in memory is left out
    #[arg(long)]
    state: bool,
    /// Print everything that it depends on, by which rule, and who said so; and what it used that
    /// is not compared
    #[arg(long, conflicts_with = "state")]
    evidence: bool,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Serialize)]
struct Shown {
    generation: u64,
    entry: CatalogueEntry,
    processes: Vec<Process>,
    descriptors: BTreeMap<&'static str, usize>,
    evidence: EvidenceV2,
}

/// What is recorded in the image, and what the catalogue has of the start.
#[derive(Serialize)]
struct AllEvidence<'a> {
    #[serde(flatten)]
    evidence: &'a EvidenceV2,
    start: Option<&'a StartEvidence>,
    held_groups: &'a [(u32, u32)],
}

#[derive(Serialize)]
struct Process {
    pid: i32,
    command: String,
    threads: usize,
    mappings: usize,
    pages: u64,
    descriptors: usize,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let store = args.store.open();
    let unit = unit_names(std::slice::from_ref(&args.unit)).remove(0);
    let catalogue = store.load()?;
    let (generation, entry) =
        catalogue.newest(&unit).with_context(|| format!("there is no image of {unit}"))?;
    let image = store.open_image(entry)?;
    let evidence = image.section(SectionKind::EVIDENCE, EvidenceV2::VERSION, EvidenceV2::MAX_LEN)?;
    let evidence = EvidenceV2::decode(&evidence, image.path())?;
    if args.evidence {
        match args.store.json {
            true => {
                let (start, held_groups) = (entry.start.as_ref(), entry.held_groups.as_slice());
                say!("{}", serde_json::to_string(&AllEvidence { evidence: &evidence, start, held_groups })?);
            }
            false => {
                print_evidence(&evidence);
                print_start(entry);
            }
        }
        return Ok(0);
    }
    let mut tree = snap_image::read_tree(&image)?.into_inner();
    if args.state {
        // Where pages lie in the image says nothing without the image.
        tree.processes.iter_mut().for_each(|process| process.mm.runs.clear());
        say!("{}", serde_json::to_string(&tree)?);
        return Ok(0);
    }
    let shown = Shown {
        generation: generation.id,
        entry: entry.clone(),
        processes: processes(&tree),
        descriptors: descriptors(&tree),
        evidence,
    };
    if args.store.json {
        say!("{}", serde_json::to_string(&shown)?);
    } else {
        print(&shown);
    }
    Ok(0)
}

fn processes(tree: &TreeV1) -> Vec<Process> {
    tree.processes
        .iter()
        .map(|process| Process {
            pid: process.pid.0,
            command: process
                .threads
                .first()
                .map_or_else(String::new, |t| String::from_utf8_lossy(&t.comm).into_owned()),
            threads: process.threads.len(),
            mappings: process.mm.vmas.len(),
            pages: process.mm.runs.iter().map(|run| u64::from(run.pages)).sum(),
            descriptors: process.fds.len(),
        })
        .collect()
}

fn descriptors(tree: &TreeV1) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for file in &tree.files {
        *counts.entry(file.kind.name()).or_insert(0) += 1;
    }
    counts
}

fn print(shown: &Shown) {
    let entry = &shown.entry;
    say!("{} · generation {} · {} · {} MB", entry.unit, shown.generation, entry.file, mb(entry.len_bytes));
    say!("Type={} · main PID {}", entry.service.service_type, entry.service.main_pid);
    for p in &shown.processes {
        say!(
            "  pid {} {}: {}, {}, {}, {}",
            p.pid,
            p.command,
            counted(p.threads as u64, "thread"),
            counted(p.mappings as u64, "mapping"),
            counted(p.pages, "page"),
            counted(p.descriptors as u64, "descriptor")
        );
    }
    let kinds: Vec<String> =
        shown.descriptors.iter().map(|(kind, count)| format!("{kind} ×{count}")).collect();
    say!("open: {}", kinds.join(", "));
    say!("depends on kernel {}, and on", shown.evidence.machine.kernel_release);
    let unit = &shown.evidence.unit;
    for text in std::iter::once(&unit.fragment).chain(&unit.drop_ins) {
        say!("  {}", text.path.display());
    }
    for file in shown.evidence.all_files() {
        say!("  {}", file.path.display());
    }
    for value in &shown.evidence.values {
        say!("  {} = {}", value.path.display(), value.value);
    }
    for accounts in &shown.evidence.accounts {
        say!("  entries of {}", accounts.path.display());
    }
    let named = |what: &str, ids: &[(String, u32)]| {
        for (name, id) in ids {
            say!("  {what} {name} as {id}");
        }
    };
    named("user", &shown.evidence.users);
    named("group", &shown.evidence.groups);
}

/// Every item with its rule and whoever said that it matters.
fn print_evidence(evidence: &EvidenceV2) {
    match &evidence.observation {
        Observation::Recorded { not_observed } => {
            say!("the start was observed; not observed:");
            not_observed.iter().for_each(|what| say!("  {what}"));
        }
        Observation::None { why } => say!("the start was not observed: {why}"),
    }
    let mut compared = table(&["compared", "rule", "known by"]);
    for text in std::iter::once(&evidence.unit.fragment).chain(&evidence.unit.drop_ins) {
        compared.add_row([text.path.display().to_string(), "content".into(), "unit file".into()]);
    }
    for item in &evidence.files {
        let path = match item.file.kind {
            FileKind::Absent => format!("{} (must not be there)", item.file.path.display()),
            _ => item.file.path.display().to_string(),
        };
        compared.add_row([path, item.rule.to_string(), item.source.to_string()]);
    }
    for file in &evidence.environment_files {
        compared.add_row([file.path.display().to_string(), "content".into(), "EnvironmentFile=".into()]);
    }
    for accounts in &evidence.accounts {
        let entries =
            format!("{} ({})", accounts.path.display(), counted(accounts.entries.len() as u64, "name"));
        compared.add_row([entries, Rule::Accounts.to_string(), Source::Observed.to_string()]);
    }
    for value in &evidence.values {
        let value_is = format!("{} = {}", value.path.display(), value.value);
        compared.add_row([value_is, Rule::Value.to_string(), Source::Observed.to_string()]);
    }
    say!("{compared}");
    if !evidence.left_out.is_empty() {
        let mut left_out = table(&["used and not compared", "rule"]);
        for one in &evidence.left_out {
            left_out.add_row([one.path.display().to_string(), one.rule.to_string()]);
        }
        say!("{left_out}");
    }
}

/// What systemd gave to the main process. What may be secret is only named.
fn print_start(entry: &CatalogueEntry) {
    if let Some(most_s) = entry.service.max_age_s {
        say!("not used when it is older than {most_s} s (MaxAge=)");
    }
    let Some(start) = &entry.start else {
        say!("how systemd starts it was not recorded (no trial, or an older fastboot), and is not compared");
        return;
    };
    let mut table = table(&["start", "item", "value"]);
    for (kind, name, value) in start.items() {
        let value = if kind.is_secret() { "a digest is compared" } else { value };
        table.add_row([kind.as_str(), name, value]);
    }
    say!("{table}");
}

/// `1 thread`, `2 threads`.
fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
