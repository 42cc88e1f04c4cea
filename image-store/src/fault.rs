//! Fault points: named places where a test can make the next step fail, stop or crash.
//!
//! Off unless the environment has `FASTBOOT_FAULT`, a comma list of `name`, `name:abort` or
//! `name:sleep=MS`: the named point then returns an error, aborts the process, or waits that many
//! milliseconds and goes on. Tests in the same process use [`arm`] instead, which holds for one
//! thread.
//!
//! A program that is shipped has none of it: without debug assertions (the profiles `dev` and
//! `verify` have them) every point is passed, whatever the environment says.
//!
//! Other crates use it too, so names carry their subject first: `image.write.header`,
//! `restore.worker.fork`.

use std::cell::RefCell;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

/// Name of the environment variable.
pub const ENV: &str = "FASTBOOT_FAULT";

/// Whether this build knows faults.
pub const IS_ON: bool = cfg!(debug_assertions);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Error,
    Abort,
    Sleep(Duration),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    name: String,
    action: Action,
}

static FROM_ENV: OnceLock<Vec<Fault>> = OnceLock::new();

thread_local! {
    static ARMED: RefCell<Vec<Fault>> = const { RefCell::new(Vec::new()) };
}

/// A fault that holds for this thread until the value is dropped.
#[derive(Debug)]
#[must_use = "the fault is gone when this is dropped"]
pub struct Armed {
    depth: usize,
    // The list is per thread, so the guard must be dropped where it was made.
    _not_send: std::marker::PhantomData<*const ()>,
}

/// Switch on the faults of `list` (same syntax as `FASTBOOT_FAULT`) for this thread.
pub fn arm(list: &str) -> Armed {
    ARMED.with_borrow_mut(|armed| {
        let depth = armed.len();
        armed.extend(parse(list));
        Armed { depth, _not_send: std::marker::PhantomData }
    })
}

impl Drop for Armed {
    fn drop(&mut self) {
        ARMED.with_borrow_mut(|armed| armed.truncate(self.depth));
    }
}

/// Pass the point `name`.
///
/// # Errors
/// Only when the point is switched on: an error of kind `Other` that names it.
pub fn point(name: &str) -> io::Result<()> {
    if !IS_ON {
        return Ok(());
    }
    let from_env = FROM_ENV.get_or_init(|| std::env::var(ENV).map(|list| parse(&list)).unwrap_or_default());
    let armed = ARMED.with_borrow(|armed| armed.iter().find(|f| f.name == name).map(|f| f.action.clone()));
    let Some(action) = armed.or_else(|| from_env.iter().find(|f| f.name == name).map(|f| f.action.clone()))
    else {
        return Ok(());
    };
    match action {
        Action::Error => Err(io::Error::other(format!("fault point {name}"))),
        Action::Abort => std::process::abort(),
        Action::Sleep(duration) => {
            std::thread::sleep(duration);
            Ok(())
        }
    }
}

/// An action that is not understood fails the point: a test with a typing error must not pass.
fn parse(list: &str) -> Vec<Fault> {
    let item = |text: &str| {
        let (name, action) = text.split_once(':').unwrap_or((text, "error"));
        let sleep_ms = action.strip_prefix("sleep=").and_then(|ms| ms.parse().ok());
        let action = match (action, sleep_ms) {
            (_, Some(ms)) => Action::Sleep(Duration::from_millis(ms)),
            ("abort", _) => Action::Abort,
            _ => Action::Error,
        };
        Fault { name: name.to_owned(), action }
    };
    list.split(',').map(str::trim).filter(|text| !text.is_empty()).map(item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_armed_point_fails_only_while_the_guard_lives() {
        point("a.b").unwrap();
        {
            let _armed = arm("x.y, a.b");
            assert!(point("a.b").unwrap_err().to_string().contains("a.b"));
            point("a.c").unwrap();
        }
        point("a.b").unwrap();
    }

    #[test]
    fn actions_are_parsed_from_the_list() {
        let parsed = parse("a, b:abort,c:sleep=20,,d:nonsense");
        let actions: Vec<_> = parsed.iter().map(|f| (f.name.as_str(), f.action.clone())).collect();
        let sleep = Action::Sleep(Duration::from_millis(20));
        assert_eq!(actions, [("a", Action::Error), ("b", Action::Abort), ("c", sleep), ("d", Action::Error)]);
    }
}
