//! A boot in one sentence.

use std::fmt;

/// Less than this is no gain: a boot varies by more.
const LEAST_MS: f64 = 20.0;
/// Cold starts that are named with their reason.
const NAMED: usize = 2;

/// What the sentence is made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Why this boot looked at no image at all.
    pub error: Option<String>,
    /// `fastboot=0` on the kernel command line.
    pub is_off: bool,
    pub restored: usize,
    /// Unit and reason.
    pub cold: Vec<(String, String)>,
    pub waiting: usize,
    /// By how much the boot was shorter than it would have been with cold starts; `None` where
    /// that is not known.
    pub gain_ms: Option<f64>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_off {
            return f.write_str(
                "switched off for this boot by fastboot=0 on the kernel command line; all services started cold",
            );
        }
        if let Some(error) = &self.error {
            return write!(f, "{error}; services start cold");
        }
        let all = self.restored + self.cold.len() + self.waiting;
        if all == 0 {
            return f.write_str("there are no images; `fastboot plan` says what could be taken");
        }
        write!(f, "{} of {} restored", self.restored, counted(all, "service"))?;
        if let Some(gain_ms) = self.gain_ms.filter(|_| self.restored > 0) {
            write!(f, ", {}", Gain(gain_ms))?;
        }
        for (unit, reason) in self.cold.iter().take(NAMED) {
            write!(f, "; {} started cold: {reason}", unit.strip_suffix(".service").unwrap_or(unit))?;
        }
        match self.cold.len().saturating_sub(NAMED) {
            0 => {}
            1 => f.write_str("; one more started cold")?,
            more => write!(f, "; {more} more started cold")?,
        }
        match self.waiting {
            0 => Ok(()),
            waiting => write!(f, "; {waiting} not started yet"),
        }
    }
}

struct Gain(f64);

impl fmt::Display for Gain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(gain_ms) = *self;
        match gain_ms {
            ms if ms.abs() < LEAST_MS => f.write_str("boot as fast as cold"),
            ms if ms < 0.0 => write!(f, "boot {} slower than cold", Span(-ms)),
            ms => write!(f, "boot {} faster than cold", Span(ms)),
        }
    }
}

/// A time for people, from milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Span(pub f64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms if ms < 999.5 => write!(f, "{ms:.0} ms"),
            ms if ms < 59_950.0 => write!(f, "{:.1} s", ms / 1e3),
            ms => write!(f, "{:.0} min", ms / 6e4),
        }
    }
}

/// `1 service`, `2 services`.
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cold(units: &[&str]) -> Vec<(String, String)> {
        units.iter().map(|unit| ((*unit).to_owned(), format!("/etc/{unit} changed"))).collect()
    }

    #[test]
    fn a_boot_is_told_in_one_sentence() {
        let summary = Summary {
            restored: 5,
            cold: vec![("redis-server.service".into(), "/etc/redis/redis.conf changed".into())],
            gain_ms: Some(2140.0),
            ..Summary::default()
        };
        assert_eq!(
            summary.to_string(),
            "5 of 6 services restored, boot 2.1 s faster than cold; redis-server started cold: \
             /etc/redis/redis.conf changed"
        );
        let said = |summary: Summary| summary.to_string();
        let one = Summary { restored: 1, gain_ms: Some(-30.0), ..Summary::default() };
        assert_eq!(said(one), "1 of 1 service restored, boot 30 ms slower than cold");
        let even = Summary { restored: 2, waiting: 1, gain_ms: Some(-3.0), ..Summary::default() };
        assert_eq!(said(even), "2 of 3 services restored, boot as fast as cold; 1 not started yet");
        let none = Summary { cold: cold(&["a", "b", "c", "d"]), gain_ms: Some(900.0), ..Summary::default() };
        assert_eq!(
            said(none),
            "0 of 4 services restored; a started cold: /etc/a changed; b started cold: /etc/b changed; \
             2 more started cold"
        );
    }

    #[test]
    fn a_boot_without_any_decision_says_so_first() {
        let off = Summary { is_off: true, cold: cold(&["a"]), ..Summary::default() };
        assert!(off.to_string().contains("fastboot=0 on the kernel command line"), "{off}");
        let damaged = Summary { error: Some("catalogue is damaged".into()), ..Summary::default() };
        assert_eq!(damaged.to_string(), "catalogue is damaged; services start cold");
        assert!(Summary::default().to_string().starts_with("there are no images"));
    }

    #[test]
    fn times_have_a_unit_that_fits() {
        let said = |ms| Span(ms).to_string();
        assert_eq!(
            [said(0.4), said(87.2), said(2140.0), said(119_000.0)],
            ["0 ms", "87 ms", "2.1 s", "2 min"]
        );
    }
}
