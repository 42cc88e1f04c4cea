//! What several tests share and the first one makes.

use std::cell::OnceCell;
use std::fmt;
use std::rc::Rc;

use anyhow::Result;

/// A value that is made when a test first asks for it. When that fails, it fails for each that
/// asks.
pub struct Once<T> {
    shared: Rc<Shared<T>>,
}

struct Shared<T> {
    made: OnceCell<Result<T, String>>,
    make: Box<dyn Fn() -> Result<T>>,
}

impl<T> Once<T> {
    /// Nothing is made yet.
    pub fn new(make: impl Fn() -> Result<T> + 'static) -> Once<T> {
        Once { shared: Rc::new(Shared { made: OnceCell::new(), make: Box::new(make) }) }
    }

    /// The value.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn get(&self) -> Result<&T> {
        let made =
            self.shared.made.get_or_init(|| (self.shared.make)().map_err(|error| format!("{error:#}")));
        made.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
    }
}

impl<T> Clone for Once<T> {
    fn clone(&self) -> Once<T> {
        Once { shared: Rc::clone(&self.shared) }
    }
}

impl<T> fmt::Debug for Once<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").field("is_made", &self.shared.made.get().is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_fails_for_all() {
        let made = Rc::new(std::cell::Cell::new(0));
        let counted = Rc::clone(&made);
        let once = Once::new(move || {
            counted.set(counted.get() + 1);
            anyhow::bail!("no luck") as Result<()>
        });
        let other = once.clone();
        assert_eq!(made.get(), 0);
        assert_eq!(once.get().unwrap_err().to_string(), "no luck");
        assert_eq!(other.get().unwrap_err().to_string(), "no luck");
        assert_eq!(made.get(), 1);
    }
}
