//! Whoever looks on while units start, or the reason why nobody does.

use crate::unit::{Band, Start, UnitProperties};
use image_store::evidence::StartEvidence;
use image_store::{Catalogue, CatalogueEntry, CheckDepth, Observation, Opened, Store};
use snap_error::observation::{EarlierStart, NotObserved, Unwatched};
use snap_error::{Error, Result, ServiceFault};
use snap_observe::Recorder;
use snap_state::bands::is_in_a_band;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Looks on from before the first restart until the last image has been taken.
#[derive(Debug)]
pub(super) enum Witness {
    Recorder(Recorder),
    /// Nobody, and why.
    Absent(Unwatched),
}

impl Witness {
    /// Begins to look on. Where that is not possible units can be taken all the same, if they say
    /// what they depend on.
    pub fn call(band: Option<&Band>) -> Self {
        let Some(band) = band else { return Self::Absent(Unwatched::NotRestarted) };
        match Recorder::start(band.range()) {
            Ok(recorder) => Self::Recorder(recorder),
            Err(error) => Self::Absent(unwatched(error)),
        }
    }

    /// A unit of which everything counts that it does from now on.
    pub fn watch(&self, control_group: &str) {
        if let Self::Recorder(recorder) = self {
            recorder.watch(control_group);
        }
    }

    /// The unit is about to start anew.
    ///
    /// # Errors
    /// When events come faster than they can be read.
    pub fn begin(&self, control_group: &str) -> Result<()> {
        match self {
            Self::Recorder(recorder) => recorder.begin(control_group).map_err(failed),
            Self::Absent(_) => Ok(()),
        }
    }

    /// No unit is restarted any more.
    ///
    /// # Errors
    /// When events come faster than they can be read.
    pub fn end_starts(&self) -> Result<()> {
        match self {
            Self::Recorder(recorder) => recorder.end_starts().map_err(failed),
            Self::Absent(_) => Ok(()),
        }
    }

    /// What the unit has done since its start.
    ///
    /// # Errors
    /// When events come faster than they can be read.
    pub fn start_of(&self, unit: &UnitProperties, earlier: &Earlier<'_>) -> Result<Start> {
        match self {
            Self::Recorder(recorder) => {
                let log = recorder.log(&unit.control_group).map_err(failed)?;
                Ok(Start::Recorded { log, blind: recorder.blind().to_vec() })
            }
            Self::Absent(cause) => Ok(earlier.start_of(unit, *cause)),
        }
    }
}

/// Images that there were before this snapshot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Earlier<'a> {
    pub store: &'a Store,
    pub catalogue: &'a Catalogue,
}

impl Earlier<'_> {
    /// The image of the processes that the unit runs as.
    fn entry_of(&self, unit: &UnitProperties) -> Option<&CatalogueEntry> {
        let entry = self.catalogue.newest(&unit.id).map(|(_, entry)| entry);
        let is_same = |main_pid: i32| main_pid == unit.main_pid && is_in_a_band(main_pid);
        entry.filter(|entry| is_same(entry.service.main_pid))
    }

    /// When the image was taken of which the unit's memory is, if it is one's.
    pub fn memory_since(&self, unit: &UnitProperties) -> Option<SystemTime> {
        let taken_unix_s = self.entry_of(unit)?.taken_unix_s?;
        Some(UNIX_EPOCH + Duration::from_secs(taken_unix_s))
    }

    /// How systemd had started these processes, if an earlier image of them knows.
    pub fn start_record(&self, unit: &UnitProperties) -> Option<StartEvidence> {
        self.entry_of(unit)?.start.clone()
    }

    /// A unit that runs as the process of an earlier image has been restored from it, or is what it
    /// was taken of: the start that was observed then is its own, as long as all that was seen is
    /// as it was.
    fn start_of(&self, unit: &UnitProperties, cause: Unwatched) -> Start {
        let unobserved = |earlier| Start::Unobserved(NotObserved { cause, earlier });
        let Some(entry) = self.entry_of(unit) else { return unobserved(None) };
        match Opened::open(self.store, entry).map(|opened| opened.evidence) {
            Ok(evidence) if matches!(evidence.observation, Observation::Recorded { .. }) => {
                match evidence.check_files(Path::new("/"), CheckDepth::ContentIfStatDiffers) {
                    Ok(()) => Start::Inherited(Box::new(evidence)),
                    Err(reason) => unobserved(Some(EarlierStart::Changed(reason))),
                }
            }
            Ok(_) => unobserved(None),
            Err(reason) => unobserved(Some(EarlierStart::Unusable(reason))),
        }
    }
}

fn failed(error: snap_observe::Error) -> Error {
    match error {
        snap_observe::Error::Kernel { step, errno } => Error::kernel(step, "the start", errno),
        snap_observe::Error::Busy { after_s } => ServiceFault::ObservationFailed { after_s }.into(),
    }
}

fn unwatched(error: snap_observe::Error) -> Unwatched {
    match error {
        snap_observe::Error::Kernel { step, errno } => Unwatched::Kernel { step, errno },
        snap_observe::Error::Busy { after_s } => Unwatched::Busy { after_s },
    }
}
