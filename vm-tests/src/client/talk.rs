//! Protocols in which one says something and looks for some bytes in what comes back.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, UdpSocket};

use anyhow::{Context as _, Result, bail};

use super::{ANSWER_BOUND, connect};

/// Longest answer that is looked at.
const MAX_ANSWER: usize = 1 << 16;

/// What is sent, and what must come before the next thing is sent. Either may be empty.
pub type Turn = (&'static [u8], &'static [u8]);

/// Have a conversation over one TCP connection to `port` of the loopback address.
///
/// # Errors
/// Nobody listens; the server says something else, or nothing.
pub fn talk(port: u16, turns: &[Turn]) -> Result<()> {
    let mut stream = connect(port).with_context(|| format!("connecting to port {port}"))?;
    for (say, wanted) in turns {
        stream.write_all(say).with_context(|| format!("talking to port {port}"))?;
        let mut heard = Vec::new();
        while !contains(&heard, wanted) {
            let mut part = [0; 4096];
            let len = stream.read(&mut part).with_context(|| format!("listening to port {port}"))?;
            heard.extend(&part[..len]);
            if len == 0 || heard.len() > MAX_ANSWER {
                bail!("port {port} answered {:?} with {:?}", lossy(say), lossy(&heard));
            }
        }
    }
    Ok(())
}

/// One datagram to `port` of the loopback address, and the one that comes back.
///
/// # Errors
/// Nobody listens, or nothing comes back.
pub fn exchange(port: u16, question: &[u8]) -> Result<Vec<u8>> {
    let ask = || -> std::io::Result<Vec<u8>> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect((Ipv4Addr::LOCALHOST, port))?;
        socket.set_read_timeout(Some(ANSWER_BOUND / 10))?;
        socket.send(question)?;
        let mut answer = vec![0; 4096];
        let len = socket.recv(&mut answer)?;
        answer.truncate(len);
        Ok(answer)
    };
    ask().with_context(|| format!("asking UDP port {port}"))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}

fn lossy(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn server(says: &'static [u8]) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(says).unwrap();
            let mut echo = [0; 4];
            stream.read_exact(&mut echo).unwrap();
            stream.write_all(&echo).unwrap();
        });
        port
    }

    #[test]
    fn each_turn_waits_for_its_answer() {
        talk(server(b"220 ready\r\n"), &[(b"", b"220 "), (b"PING", b"PING")]).unwrap();
    }

    #[test]
    fn another_answer_is_an_error_that_shows_it() {
        let error = talk(server(b"220 ready\r\n"), &[(b"", b"220 "), (b"PING", b"PONG")]).unwrap_err();
        assert!(error.to_string().contains(r#""PING" with "PING""#), "{error}");
    }
}
