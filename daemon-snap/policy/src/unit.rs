//! A unit as it is judged, from either side.

use std::path::{Path, PathBuf};

use crate::manager::ManagerView;
use crate::options::Options;
use crate::reason::Reason;
use crate::settings::Settings;
use crate::unit_text::{self, Assignment};

/// A fragment or drop-in that somebody has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFile {
    /// Where it lies.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

/// A unit: its text, and what systemd tells of it where that was asked.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Its own name, of all that it has.
    pub(crate) name: String,
    pub(crate) fragment: Option<PathBuf>,
    /// Drop-ins in the order in which they apply, without ours.
    pub(crate) drop_ins: Vec<Parsed>,
    pub(crate) settings: Settings,
    pub(crate) options: Options,
    pub(crate) option_reasons: Vec<Reason>,
    pub(crate) manager: Option<ManagerView>,
}

/// A drop-in, and what it says.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    pub path: PathBuf,
    pub assignments: Vec<Assignment>,
}

impl Unit {
    /// A unit with this text: fragment, then drop-ins in the order in which they apply, without the
    /// one that fastboot's generator has written.
    pub fn from_text(name: &str, fragment: Option<TextFile>, drop_ins: Vec<TextFile>) -> Unit {
        let parse = |file: TextFile| Parsed { path: file.path, assignments: unit_text::parse(&file.text) };
        let fragment = fragment.map(parse);
        let drop_ins: Vec<Parsed> = drop_ins.into_iter().map(parse).collect();
        let all = || fragment.iter().chain(&drop_ins).flat_map(|file| &file.assignments);
        let (options, option_reasons) = Options::from_assignments(all());
        Unit {
            name: name.to_owned(),
            settings: Settings::from_assignments(all().cloned()),
            options,
            option_reasons,
            fragment: fragment.map(|file| file.path),
            drop_ins,
            manager: None,
        }
    }

    /// The same unit, of which systemd tells this.
    #[must_use]
    pub fn with_manager(self, view: ManagerView) -> Unit {
        Unit { manager: Some(view), ..self }
    }

    /// The same unit as one whose state moves with its memory: what it writes stands against
    /// nothing, and what it has read of its own state (`roots`) is no evidence of its start.
    #[must_use]
    pub fn with_state_that_moves(mut self, roots: impl IntoIterator<Item = String>) -> Unit {
        self.options.allow_state = true;
        self.options.ignore_changes.extend(roots);
        self
    }

    /// Whether systemd takes nothing from this drop-in: all that it says stands in sections that
    /// systemd ignores, as ours.
    pub fn concerns_no_start(&self, drop_in: &Path) -> bool {
        let file = self.drop_ins.iter().find(|file| file.path == drop_in);
        file.is_some_and(|file| file.assignments.iter().all(|one| one.section.starts_with("X-")))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its text says of its start.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What its text asks of us. Wrong values count as not given.
    pub fn options(&self) -> &Options {
        &self.options
    }
}

/// Note a reason once, whoever has said it first.
pub(crate) fn add(reasons: &mut Vec<Reason>, reason: Reason) {
    if !reasons.contains(&reason) {
        reasons.push(reason);
    }
}
