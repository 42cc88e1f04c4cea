//! Real clients, kept small so that they cost little beside what they measure. They run on a thread
//! inside the container's network
//! ([`Container::in_network`](crate::container::Container::in_network)).

mod dns;
mod http;
mod probe;
mod redis;
mod talk;

pub use dns::resolve;
pub use http::{Response, get};
pub use probe::{Answer, first_answer, now_us};
pub use redis::command;
pub use talk::{Turn, exchange, talk};

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Longest for one answer once a server has taken the connection.
const ANSWER_BOUND: Duration = Duration::from_secs(10);

fn connect(port: u16) -> std::io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, ANSWER_BOUND)?;
    stream.set_read_timeout(Some(ANSWER_BOUND))?;
    stream.set_write_timeout(Some(ANSWER_BOUND))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
