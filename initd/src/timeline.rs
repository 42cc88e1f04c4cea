//! Where the time of a start went.

use std::time::{Duration, Instant};

use fastboot_runtime::status::Phases;

/// A clock that is read at the end of each phase.
#[derive(Debug)]
pub struct Timeline {
    last: Instant,
    phases: Vec<(String, f64)>,
}

impl Timeline {
    /// Begins now.
    pub fn begin() -> Timeline {
        Timeline { last: Instant::now(), phases: Vec::new() }
    }

    /// A phase ends now.
    pub fn mark(&mut self, phase: &str) {
        let now = Instant::now();
        self.push(phase, now - self.last);
        self.last = now;
    }

    /// Phases that somebody else has measured, and whose end nobody here has seen: what is left of
    /// the time since the last mark belongs to `rest`.
    pub fn take(&mut self, measured: &[(&str, Duration)], rest: &str) {
        let now = Instant::now();
        let all: Duration = measured.iter().map(|(_, took)| *took).sum();
        for (phase, took) in measured {
            self.push(phase, *took);
        }
        self.push(rest, (now - self.last).saturating_sub(all));
        self.last = now;
    }

    /// What has been measured so far.
    pub fn phases(&self) -> Phases {
        Phases(self.phases.clone())
    }

    fn push(&mut self, phase: &str, took: Duration) {
        let ms = (took.as_secs_f64() * 1e6).round() / 1e3;
        self.phases.push((phase.to_owned(), ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_add_up_to_the_whole() {
        let began = Instant::now();
        let mut timeline = Timeline::begin();
        std::thread::sleep(Duration::from_millis(2));
        timeline.mark("a");
        std::thread::sleep(Duration::from_millis(5));
        timeline.take(&[("b", Duration::from_millis(1)), ("c", Duration::from_millis(2))], "d");
        let whole = began.elapsed().as_secs_f64() * 1e3;
        let Phases(phases) = timeline.phases();
        let names: Vec<&str> = phases.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c", "d"]);
        assert!((phases.iter().map(|(_, ms)| ms).sum::<f64>() - whole).abs() < 1.0);
        assert!(phases[0].1 >= 2.0 && phases[3].1 >= 2.0);
    }
}
