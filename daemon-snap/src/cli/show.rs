//! `fastboot show`.

use super::common::{StoreArgs, mb, service_name};
use super::page::{Column, Page};
use anyhow::Context as _;
use comfy_table::Cell;
use image_store::evidence::{Scope, StartEvidence};
use image_store::{CatalogueEntry, EvidenceV2, FileKind, Observation, Rule, SectionKind, Source};
use serde::Serialize;
use snap_state::TreeV1;
use std::collections::BTreeMap;

/// Show what an image holds and what it depends on
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Service
    #[arg(value_parser = service_name)]
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
    let unit = args.unit.as_str();
    let catalogue = store.load()?;
    let (generation, entry) =
        catalogue.newest(unit).with_context(|| format!("there is no image of {unit}"))?;
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
                let mut page = Page::new();
                print_evidence(&mut page, &evidence);
                print_start(&mut page, entry);
                page.show();
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
    let mut page = Page::new();
    let entry = &shown.entry;
    page.say(format_args!(
        "{} · generation {} · {} · {} MB",
        entry.unit,
        shown.generation,
        entry.file,
        mb(entry.len_bytes)
    ));
    page.say(format_args!("Type={} · main PID {}", entry.service.service_type, entry.service.main_pid));
    if entry.machine.scope() == Scope::EqualMachines {
        page.say("golden: for every machine that is equal to the one that made it");
    }
    for p in &shown.processes {
        page.item(
            "  ",
            "    ",
            format_args!(
                "pid {} {}: {}, {}, {}, {}",
                p.pid,
                p.command,
                counted(p.threads as u64, "thread"),
                counted(p.mappings as u64, "mapping"),
                counted(p.pages, "page"),
                counted(p.descriptors as u64, "descriptor")
            ),
        );
    }
    let kinds: Vec<String> =
        shown.descriptors.iter().map(|(kind, count)| format!("{kind} ×{count}")).collect();
    page.say(format_args!("open: {}", kinds.join(", ")));
    page.say(format_args!("depends on kernel {}, and on", shown.evidence.machine.kernel_release));
    let unit = &shown.evidence.unit;
    for text in std::iter::once(&unit.fragment).chain(&unit.drop_ins) {
        page.item("  ", "    ", format_args!("{}", text.path.display()));
    }
    for file in shown.evidence.all_files() {
        page.item("  ", "    ", format_args!("{}", file.path.display()));
    }
    for value in &shown.evidence.values {
        page.item("  ", "    ", format_args!("{} = {}", value.path.display(), value.value));
    }
    for accounts in &shown.evidence.accounts {
        page.item("  ", "    ", format_args!("entries of {}", accounts.path.display()));
    }
    for (what, ids) in [("user", &shown.evidence.users), ("group", &shown.evidence.groups)] {
        for (name, id) in ids {
            page.item("  ", "    ", format_args!("{what} {name} as {id}"));
        }
    }
    page.show();
}

/// Every item with its rule and whoever said that it matters.
fn print_evidence(page: &mut Page, evidence: &EvidenceV2) {
    match &evidence.observation {
        Observation::Recorded { not_observed } => {
            page.say("the start was observed; not observed:");
            not_observed.iter().for_each(|what| page.item("  ", "    ", what));
        }
        Observation::None { why } => page.say(format_args!("the start was not observed: {why}")),
    }
    let mut compared = Vec::new();
    for text in std::iter::once(&evidence.unit.fragment).chain(&evidence.unit.drop_ins) {
        compared.push([text.path.display().to_string(), "content".into(), "unit file".into()]);
    }
    for item in &evidence.files {
        let path = match item.file.kind {
            FileKind::Absent => format!("{} (must not be there)", item.file.path.display()),
            _ => item.file.path.display().to_string(),
        };
        compared.push([path, item.rule.to_string(), item.source.to_string()]);
    }
    for file in &evidence.environment_files {
        compared.push([file.path.display().to_string(), "content".into(), "EnvironmentFile=".into()]);
    }
    for accounts in &evidence.accounts {
        let entries =
            format!("{} ({})", accounts.path.display(), counted(accounts.entries.len() as u64, "name"));
        compared.push([entries, Rule::Accounts.to_string(), Source::Observed.to_string()]);
    }
    for value in &evidence.values {
        let value_is = format!("{} = {}", value.path.display(), value.value);
        compared.push([value_is, Rule::Value.to_string(), Source::Observed.to_string()]);
    }
    let cells = |row: [String; 3]| row.map(Cell::new).to_vec();
    let columns = [Column::Text("RULE"), Column::Text("COMPARED"), Column::Rest("KNOWN BY")];
    let in_order = compared.into_iter().map(|[path, rule, source]| cells([rule, path, source]));
    page.table(&columns, in_order);
    if !evidence.left_out.is_empty() {
        page.gap();
        let left_out = evidence.left_out.iter();
        let row = |rule: String, path: String| [rule, path].map(Cell::new).to_vec();
        page.table(
            &[Column::Text("RULE"), Column::Rest("USED AND NOT COMPARED")],
            left_out.map(|one| row(one.rule.to_string(), one.path.display().to_string())),
        );
    }
}

/// What systemd gave to the main process. What may be secret is only named.
fn print_start(page: &mut Page, entry: &CatalogueEntry) {
    page.gap();
    if let Some(most_s) = entry.service.max_age_s {
        page.say(format_args!("not used when it is older than {most_s} s (MaxAge=)"));
    }
    let Some(start) = &entry.start else {
        page.say(
            "how systemd starts it was not recorded (no trial, or an older fastboot), and is not compared",
        );
        return;
    };
    let columns = [Column::Text("START"), Column::Text("ITEM"), Column::Rest("VALUE")];
    let rows = start.items().map(|(kind, name, value)| {
        let value = if kind.is_secret() { "a digest is compared" } else { value };
        [kind.as_str(), name, value].map(Cell::new).to_vec()
    });
    page.table(&columns, rows);
}

/// `1 thread`, `2 threads`.
fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
