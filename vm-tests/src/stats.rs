//! Medians and spread of a few measured values.

use serde::Serialize;

/// Median, least and greatest of some figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Middle value; of an even number the mean of the two in the middle.
    pub median: f64,
    /// Least value.
    pub min: f64,
    /// Greatest value.
    pub max: f64,
}

impl Spread {
    /// The spread of `values`; `None` when there is none.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Spread { median, min, max })
    }

    /// `12.3 (11.0–14.2)`, in whatever unit the values have.
    pub fn text(&self) -> String {
        format!("{} ({}–{})", short(self.median), short(self.min), short(self.max))
    }
}

/// Three significant digits are what such a measurement carries.
pub fn short(value: f64) -> String {
    match value.abs() {
        v if v < 10.0 => format!("{value:.2}"),
        v if v < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_does_not_follow_an_outlier() {
        let spread = Spread::of(&[4.0, 900.0, 3.0]).unwrap();
        assert_eq!(spread, Spread { median: 4.0, min: 3.0, max: 900.0 });
        assert_eq!(Spread::of(&[1.0, 2.0]).unwrap().median, 1.5);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn figures_carry_three_digits() {
        assert_eq!(Spread { median: 1234.5, min: 2.346, max: 45.67 }.text(), "1234 (2.35–45.7)");
    }
}
