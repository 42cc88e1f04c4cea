//! `fastboot doctor`.

use super::common::StoreArgs;
use super::page::Page;
use daemon_snap::doctor::{self, Finding};
use nix::unistd::geteuid;

const FAILED: u8 = 1;

/// Say what this machine can and cannot do, and what follows from it; exit code 1 when something
/// necessary is missing
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let report = doctor::examine(args.store.path());
    if args.store.json {
        say!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report.findings);
    }
    Ok(if report.ok { 0 } else { FAILED })
}

/// Lines and no table: what was found may be long, and most of what follows is empty.
fn print(findings: &[Finding]) {
    let mut page = Page::new();
    let missing = findings.iter().filter(|finding| !finding.ok && finding.necessary).count();
    match missing {
        0 => page.say("Everything necessary is there."),
        1 => page.say("One necessary thing is missing."),
        count => page.say(format_args!("{count} necessary things are missing.")),
    }
    if !geteuid().is_root() {
        page.say("Not run as root: much of what follows is missing only for that.");
    }
    page.gap();
    for finding in findings {
        let mark = match (finding.ok, finding.necessary) {
            (true, _) => "ok",
            (false, true) => "MISSING",
            (false, false) => "less",
        };
        let head = format!("{mark:8} {:18} ", finding.name);
        let below = " ".repeat(head.chars().count());
        page.item(&head, &below, &finding.found);
        if !finding.consequence.is_empty() {
            page.item(&format!("{below}→ "), &format!("{below}  "), &finding.consequence);
        }
    }
    page.show();
}
