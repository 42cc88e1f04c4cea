//! Listens to the bus while a snapshot is taken: rules, flags of names and open calls cannot be
//! asked for afterwards.

use super::known::{Known, Told};
use super::message::{DRIVER, body, unreadable};
use super::stream::BusStream;
use snap_error::{Error, Result};
use snap_sys as sys;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Where Debian, like every system of today, has its system bus.
pub const SYSTEM_BUS: &[u8] = b"/run/dbus/system_bus_socket";
const STATS: &str = "org.freedesktop.DBus.Debug.Stats";
/// Longest wait for an answer of the bus; it answers in less than a millisecond.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the listener looks whether it shall end.
const BREATH: Duration = Duration::from_millis(100);

/// A monitor on the system bus (`org.freedesktop.DBus.Monitoring.BecomeMonitor`), and a connection
/// to ask questions on.
#[derive(Debug)]
pub struct BusWatch {
    known: Arc<Mutex<Known>>,
    end: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
    questions: Mutex<BusStream<OwnedFd>>,
    own_name: String,
}

/// What the bus knows of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub uid: u32,
    pub pid: Option<i32>,
}

impl BusWatch {
    /// Connects twice and begins to listen.
    ///
    /// # Errors
    /// No bus, or it does not let us monitor (not root).
    pub fn start() -> Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        let mut questions = BusStream::new(connect()?, deadline);
        let own_name = questions.greet()?;
        let mut ears = BusStream::new(connect()?, deadline);
        ears.greet()?;
        let everything: (&[&str], u32) = (&[], 0);
        ears.ask("org.freedesktop.DBus.Monitoring", "BecomeMonitor", &everything)?;
        let (known, end) = (Arc::new(Mutex::new(Known::default())), Arc::new(AtomicBool::new(false)));
        let (heard, stop) = (Arc::clone(&known), Arc::clone(&end));
        let listener = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                ears.until(Instant::now() + BREATH);
                match ears.message() {
                    Ok(Some(message)) => lock(&heard).see(&message),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::debug!(%error, "the bus monitor has ended");
                        return;
                    }
                }
            }
        });
        Ok(Self { known, end, listener: Some(listener), questions: Mutex::new(questions), own_name })
    }

    /// What this connection has told the bus since we listen; everything that it said before the
    /// call is in it.
    ///
    /// # Errors
    /// The bus does not answer, or the monitor has ended.
    pub fn told(&self, unique_name: &str) -> Result<Told> {
        self.catch_up()?;
        let mut told = lock(&self.known).told(unique_name);
        // dbus-daemon can list the rules itself, dbus-broker cannot.
        if !told.whole
            && let Ok(reply) = self.ask(STATS, "GetAllMatchRules", &())
        {
            let all: BTreeMap<String, Vec<String>> = body(&reply)?;
            told.rules = all.get(unique_name).cloned().unwrap_or_default();
            told.whole = true;
        }
        Ok(told)
    }

    /// Calls from or to a connection that are not answered yet, as far as was heard before the last
    /// [`Self::told`]. What is called later waits in the queue of the frozen daemon.
    pub fn open_calls(&self, unique_name: &str, names: &[String]) -> Vec<String> {
        lock(&self.known).open_calls(unique_name, names)
    }

    /// Well-known names that the connection owns (`true`) or waits for.
    ///
    /// # Errors
    /// The bus does not answer.
    pub fn names_of(&self, unique_name: &str) -> Result<Vec<(String, bool)>> {
        let mut names = Vec::new();
        for name in self.names()?.into_iter().filter(|name| !name.starts_with(':') && name != DRIVER) {
            // It may be gone by now.
            let Ok(reply) = self.ask(DRIVER, "ListQueuedOwners", &name) else { continue };
            let queue: Vec<String> = body(&reply)?;
            if let Some(place) = queue.iter().position(|owner| owner == unique_name) {
                names.push((name, place == 0));
            }
        }
        Ok(names)
    }

    /// Every name on the bus with its owner, our own left out.
    ///
    /// # Errors
    /// The bus does not answer.
    pub fn owners(&self) -> Result<Vec<(String, String)>> {
        let mut owners = Vec::new();
        for name in self.names()? {
            let owner = match name.starts_with(':') {
                true => name.clone(),
                false => {
                    let Ok(reply) = self.ask(DRIVER, "GetNameOwner", &name) else { continue };
                    body(&reply)?
                }
            };
            if owner != self.own_name {
                owners.push((name, owner));
            }
        }
        Ok(owners)
    }

    /// Who the bus thinks a connection is.
    ///
    /// # Errors
    /// The bus does not answer, or does not know the user.
    pub fn credentials(&self, unique_name: &str) -> Result<Credentials> {
        let number = |member| body::<u32>(&self.ask(DRIVER, member, &unique_name)?);
        let uid = number("GetConnectionUnixUser")?;
        // The process that connected may have ended.
        let pid = number("GetConnectionUnixProcessID").ok().map(|pid| pid as i32);
        Ok(Credentials { uid, pid })
    }

    fn names(&self) -> Result<Vec<String>> {
        body(&self.ask(DRIVER, "ListNames", &())?)
    }

    /// Waits until the monitor has seen a call that we make now: then it has seen all that came
    /// before.
    fn catch_up(&self) -> Result<()> {
        let marker = format!("type='signal',sender='{}',member='Fence'", self.own_name);
        for member in ["AddMatch", "RemoveMatch"] {
            self.ask(DRIVER, member, &marker)?;
            let there = member == "AddMatch";
            let deadline = Instant::now() + PATIENCE;
            while lock(&self.known).told(&self.own_name).rules.contains(&marker) != there {
                if Instant::now() >= deadline || self.listener.as_ref().is_none_or(JoinHandle::is_finished) {
                    return Err(unreadable(&"the bus monitor has ended"));
                }
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        Ok(())
    }

    fn ask<B>(&self, interface: &str, member: &str, body: &B) -> Result<zbus::Message>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        let mut questions = lock(&self.questions);
        questions.until(Instant::now() + PATIENCE);
        questions.ask(interface, member, body)
    }
}

impl Drop for BusWatch {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(listener) = self.listener.take() {
            // It ends after one breath; a panic there has been printed.
            let _ = listener.join();
        }
    }
}

fn connect() -> Result<OwnedFd> {
    let failed = |e| Error::kernel("connecting to", String::from_utf8_lossy(SYSTEM_BUS), e);
    let fd = sys::rebuild::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0).map_err(failed)?;
    sys::rebuild::connect(fd.as_fd(), &sys::rebuild::unix_address(SYSTEM_BUS)).map_err(failed)?;
    Ok(fd)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
