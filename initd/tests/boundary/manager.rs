//! In the place of systemd on its private socket: it says of each unit what a test tells it to.

use std::collections::HashMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use initd::systemd::PRIVATE_SOCKET;
use snap_bus::message_len;
use snap_sys::dbus::message_from;
use zbus::Message;
use zbus::zvariant::Value;

/// What systemd says of a unit, by the name of the property.
type Properties = HashMap<&'static str, u64>;

/// Numbers that are 32 bits wide in systemd.
const NARROW: [&str; 3] = ["MainPID", "ControlPID", "NRestarts"];
const SENDER: &str = "org.freedesktop.systemd1";
const OF_A_CONNECTION: &str = ":1.000000000000000000000";
/// When everything began.
pub const USERSPACE_US: u64 = 1_000_000;

/// systemd's memory.
#[derive(Clone, Default)]
pub struct Manager {
    units: Arc<Mutex<HashMap<String, Properties>>>,
}

impl Manager {
    /// Begin to answer.
    pub fn start() -> Manager {
        let manager = Manager::default();
        fs::create_dir_all(Path::new(PRIVATE_SOCKET).parent().unwrap()).unwrap();
        let listener = UnixListener::bind(PRIVATE_SOCKET).unwrap();
        let answering = manager.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let manager = answering.clone();
                // A client that goes away in the middle is no failure of a test.
                std::thread::spawn(move || manager.converse(stream).unwrap_or_default());
            }
        });
        manager
    }

    /// From now on this is said of a unit.
    pub fn say(&self, unit: &str, property: &'static str, value: u64) {
        self.units.lock().unwrap().entry(escaped(unit)).or_default().insert(property, value);
    }

    fn converse(&self, mut stream: UnixStream) -> std::io::Result<()> {
        let mut unread = Vec::new();
        let mut is_in = false;
        let mut bytes = [0; 4096];
        loop {
            let got = stream.read(&mut bytes)?;
            if got == 0 {
                return Ok(());
            }
            unread.extend_from_slice(&bytes[..got]);
            if !is_in {
                let begin = b"BEGIN\r\n";
                let Some(at) = unread.windows(begin.len()).position(|some| some == begin) else { continue };
                unread.drain(..at + begin.len());
                stream.write_all(b"DATA\r\nOK 00112233445566778899aabbccddeeff\r\nAGREE_UNIX_FD\r\n")?;
                is_in = true;
            }
            while let Some(len) = message_len(&unread).unwrap().filter(|len| *len <= unread.len()) {
                let call = message_from(unread.drain(..len).collect()).unwrap();
                stream.write_all(&self.answer(&call))?;
            }
        }
    }

    fn answer(&self, call: &Message) -> Vec<u8> {
        let header = call.header();
        let (_, name): (String, String) = call.body().deserialize().unwrap();
        let path = header.path().unwrap().to_string();
        let unit = path.rsplit('/').next().unwrap();
        let said = self.units.lock().unwrap().get(unit).and_then(|of| of.get(name.as_str()).copied());
        let value = said.unwrap_or(if name == "UserspaceTimestampMonotonic" { USERSPACE_US } else { 0 });
        let value = match NARROW.contains(&name.as_str()) {
            true => Value::U32(value as u32),
            false => Value::U64(value),
        };
        let reply = Message::method_return(&header).unwrap().sender(OF_A_CONNECTION).unwrap();
        let mut bytes = reply.build(&value).unwrap().data().to_vec();
        // As systemd names itself, which zbus would not write.
        let at = bytes.windows(SENDER.len()).position(|some| some == OF_A_CONNECTION.as_bytes()).unwrap();
        bytes[at..at + SENDER.len()].copy_from_slice(SENDER.as_bytes());
        bytes
    }
}

/// As systemd writes the names that the tests use: letters, dots and hyphens.
fn escaped(unit: &str) -> String {
    unit.replace('.', "_2e").replace('-', "_2d")
}
