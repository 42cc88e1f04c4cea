//! All tests of the workspace.

use anyhow::Result;
use test_frame::{Registry, Source};

use crate::{
    bare, daemons, dbus, demo, evidence, fast_restart, golden, kernel_state, layers, operator, package,
    randomness, reboots, rust_tests, scenarios, shipped, source, units,
};

/// In the order in which they run: what is quick and tells most comes first.
///
/// # Errors
/// cargo does not know its packages.
pub fn registry() -> Result<Registry> {
    let mut sources =
        vec![Source::new("source", || Ok(source::tests())), Source::new("layers", || Ok(layers::tests()))];
    sources.extend(rust_tests::sources()?);
    sources.extend([
        Source::new("shipped", || Ok(shipped::tests())),
        Source::new("scenarios", || Ok(scenarios::tests())),
        Source::new("units", || Ok(units::tests())),
        Source::new("operator", || Ok(operator::tests())),
        Source::new("evidence", || Ok(evidence::tests())),
        Source::new("kernel-state", || Ok(kernel_state::tests())),
        Source::new("fast-restart", || Ok(fast_restart::tests())),
        Source::new("golden", || Ok(golden::tests())),
        Source::new("dbus", || Ok(dbus::tests())),
        Source::new("randomness", || Ok(randomness::tests())),
        Source::new("package", || Ok(package::tests())),
        Source::new("machines", || Ok(reboots::tests())),
        Source::new("demo", || Ok(demo::tests())),
        Source::new("daemons", || Ok(daemons::tests())),
        Source::new("bare", || Ok(bare::tests())),
    ]);
    Ok(Registry::new(sources))
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_frame::{Test, When};

    /// All but those that cargo builds.
    fn own() -> Vec<Test> {
        let families = [
            "source",
            "shipped",
            "scenarios",
            "units",
            "operator",
            "evidence",
            "kernel-state",
            "fast-restart",
            "golden",
            "dbus",
            "randomness",
            "package",
            "machines",
            "demo",
            "daemons",
        ];
        registry().unwrap().named(&families.map(str::to_owned), true).unwrap()
    }

    #[test]
    fn names_can_be_typed_without_quotes_and_are_used_once() {
        let tests = own();
        assert!(tests.len() > 100, "{} tests", tests.len());
        for test in tests {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "/_-.@=+".contains(c);
            assert!(test.name.chars().all(is_plain), "{}", test.name);
        }
    }

    #[test]
    fn a_family_leaves_out_what_takes_long_unless_that_is_all_of_it() {
        let registry = registry().unwrap();
        let named = |words: &[&str], full| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            registry.named(&words, full).unwrap()
        };
        let all = named(&["machines"], true).len();
        let usual = named(&["machines"], false);
        assert!(usual.len() < all && usual.iter().all(|test| test.when == When::Always));
        assert_eq!(named(&["machines/systemd_is_upgraded"], false).len(), 1);
        assert_eq!(named(&["demo"], false).len(), 1);
        assert!(named(&["daemons/web"], false).len() > 2);
    }

    #[test]
    fn who_errs_in_a_name_is_offered_another() {
        let error = registry().unwrap().named(&["units/keyrng".to_owned()], false).unwrap_err().to_string();
        assert!(error.contains("units/keyring"), "{error}");
    }
}
