//! Subject of the bus tests: counts calls on the bus and writes down what happens to another name.
//! zbus.

use std::fs::File;
use std::io::Write as _;

use zbus::blocking::{Connection, MessageIterator, connection};
use zbus::message::Type;
use zbus::object_server::SignalEmitter;

const PATH: &str = "/com/example/Count";
const INTERFACE: &str = "com.example.Count";
const BUS: &str = "org.freedesktop.DBus";

struct Count(u32);

#[zbus::interface(name = "com.example.Count")]
impl Count {
    async fn next(&mut self, #[zbus(signal_emitter)] emitter: SignalEmitter<'_>) -> zbus::fdo::Result<u32> {
        self.0 += 1;
        Self::tick(&emitter, self.0).await?;
        Ok(self.0)
    }

    async fn ask(
        &self,
        other: String,
        #[zbus(connection)] connection: &zbus::Connection,
    ) -> zbus::fdo::Result<u32> {
        let other = other.as_str();
        let answer = connection.call_method(Some(other), PATH, Some(INTERFACE), "Next", &()).await?;
        Ok(answer.body().deserialize()?)
    }

    #[zbus(signal)]
    async fn tick(emitter: &SignalEmitter<'_>, count: u32) -> zbus::Result<()>;
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), Some(watched)) = (arguments.next(), arguments.next()) else {
        return Err("usage: zbus-count NAME WATCHED".into());
    };
    let connection: Connection = connection::Builder::system()?.serve_at(PATH, Count(0))?.build()?;
    let owners =
        format!("type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='{watched}'");
    let ticks = format!("type='signal',sender='{watched}',interface='{INTERFACE}',member='Tick'");
    for rule in [owners, ticks] {
        connection.call_method(Some(BUS), "/org/freedesktop/DBus", Some(BUS), "AddMatch", &rule)?;
    }
    let messages = MessageIterator::from(&connection);
    connection.request_name(name.as_str())?;
    let log = |line: String| -> std::io::Result<()> {
        let mut file = File::options().create(true).append(true).open(format!("/var/log/{name}"))?;
        writeln!(file, "{line}")
    };
    for message in messages {
        let message = message?;
        if message.message_type() != Type::Signal {
            continue;
        }
        let member = message.header().member().map(ToString::to_string).unwrap_or_default();
        let body = message.body();
        match member.as_str() {
            "NameOwnerChanged" => {
                let (changed, old, new): (String, String, String) = body.deserialize()?;
                if changed == watched {
                    let had = if old.is_empty() { "none" } else { "had" };
                    let has = if new.is_empty() { "none" } else { "has" };
                    log(format!("{changed} {had} {has}"))?;
                }
            }
            "Tick" => log(format!("tick {}", body.deserialize::<u32>()?))?,
            _ => {}
        }
    }
    Ok(())
}
