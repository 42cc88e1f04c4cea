//! What was measured, and under which conditions.

use std::fs;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::place::{self, WORK_DIR};
use super::subject::Subject;
use super::tool::Tool;
use crate::host;

/// Everything of one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Figures {
    pub(super) machine: String,
    pub(super) tools: Vec<ToolDescription>,
    /// Measured rounds, after one that does not count.
    pub(super) rounds: u32,
    /// Whether restores found the image outside of the page cache.
    pub(super) cold_cache: bool,
    /// File system of the images, and the policy for huge pages.
    pub(super) conditions: Vec<String>,
    /// How busy the machine was with other things before and after.
    pub(super) busy_percent: Vec<f64>,
    pub(super) load: Vec<String>,
    pub(super) empty_command_ms: Vec<f64>,
    pub(super) subjects: Vec<SubjectFigures>,
}

/// A tool as it was run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ToolDescription {
    pub(super) tool: Tool,
    pub(super) version: String,
    pub(super) dump: String,
    pub(super) restore: String,
}

/// One row.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SubjectFigures {
    pub(super) name: String,
    pub(super) description: String,
    /// Resident memory of the last one before its dump.
    pub(super) memory_kib: u64,
    fastboot: ToolFigures,
    criu: ToolFigures,
}

/// What one tool did with one subject.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct ToolFigures {
    pub(super) dump_ms: Vec<f64>,
    pub(super) restore_ms: Vec<f64>,
    /// Of the last image.
    pub(super) image_bytes: Option<u64>,
    /// Why it did not work. The tool is not asked again for this subject then.
    pub(super) failure: Option<String>,
}

/// One dump with its restore, proved.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) dump_ms: f64,
    pub(super) restore_ms: f64,
    pub(super) image_bytes: u64,
}

impl Figures {
    /// No figures yet, but what is known beforehand. Takes a second.
    ///
    /// # Errors
    /// One of the tools does not run.
    pub(super) fn new(rounds: u32, cold_cache: bool) -> Result<Figures> {
        let describe = |tool: Tool| -> Result<ToolDescription> {
            let [dump, restore] = tool.lines();
            Ok(ToolDescription { tool, version: tool.version()?, dump, restore })
        };
        let huge = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mounts").context("reading mounts")?;
        let mut figures = Figures {
            machine: host::describe(),
            tools: Tool::BOTH.into_iter().map(describe).collect::<Result<_>>()?,
            rounds,
            cold_cache,
            conditions: vec![
                format!(
                    "images in {WORK_DIR} on {}",
                    root_file_system(&mounts).unwrap_or("an unknown file system")
                ),
                format!("transparent huge pages: {}", huge.trim()),
            ],
            busy_percent: Vec::new(),
            load: Vec::new(),
            empty_command_ms: Vec::new(),
            subjects: Vec::new(),
        };
        figures.note_end()?;
        Ok(figures)
    }

    /// Note how busy the machine is now. Takes a second.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub(super) fn note_end(&mut self) -> Result<()> {
        let load = fs::read_to_string("/proc/loadavg").context("reading the load")?;
        self.load.push(load.split(' ').take(3).collect::<Vec<_>>().join(" "));
        self.busy_percent.push(place::busy_percent()?);
        Ok(())
    }

    /// What did not work, as `subject: tool: why`.
    pub(super) fn failures(&self) -> impl Iterator<Item = String> {
        self.subjects.iter().flat_map(|row| {
            Tool::BOTH.into_iter().filter_map(move |tool| {
                let why = row.by(tool).failure.as_ref()?;
                Some(format!("{}: {}: {why}", row.name, tool.name()))
            })
        })
    }
}

impl SubjectFigures {
    pub(super) fn new(subject: Subject) -> SubjectFigures {
        SubjectFigures {
            name: subject.name().to_owned(),
            description: subject.description().to_owned(),
            memory_kib: 0,
            fastboot: ToolFigures::default(),
            criu: ToolFigures::default(),
        }
    }

    pub(super) fn of(&mut self, tool: Tool) -> &mut ToolFigures {
        match tool {
            Tool::Fastboot => &mut self.fastboot,
            Tool::Criu => &mut self.criu,
        }
    }

    pub(super) fn by(&self, tool: Tool) -> &ToolFigures {
        match tool {
            Tool::Fastboot => &self.fastboot,
            Tool::Criu => &self.criu,
        }
    }
}

impl ToolFigures {
    pub(super) fn note(&mut self, round: u32, sample: Result<Sample>) {
        match sample {
            Ok(sample) => {
                self.dump_ms.push(sample.dump_ms);
                self.restore_ms.push(sample.restore_ms);
                self.image_bytes = Some(sample.image_bytes);
            }
            Err(error) => self.failure = Some(format!("round {round}: {error:#}")),
        }
    }
}

fn root_file_system(mounts: &str) -> Option<&str> {
    // Later lines lie above earlier ones.
    mounts.lines().rev().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        (words.next()? == "/").then(|| words.next())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_is_the_one_on_top() {
        let mounts = "rootfs / rootfs rw 0 0\nproc /proc proc rw 0 0\n/dev/vda / ext4 rw 0 0\n";
        assert_eq!(root_file_system(mounts), Some("ext4"));
        assert_eq!(root_file_system(""), None);
    }

    #[test]
    fn a_failure_is_part_of_the_row_and_keeps_its_reason() {
        let mut row = SubjectFigures::new(Subject::Tiny);
        row.of(Tool::Criu).note(3, Err(anyhow::anyhow!("no").context("dump")));
        assert_eq!(row.by(Tool::Criu).failure.as_deref(), Some("round 3: dump: no"));
        assert!(row.by(Tool::Fastboot).failure.is_none());
    }
}
