//! One HTTP request per connection.

use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result, bail};

use super::connect;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Everything after the header.
    pub body: String,
}

/// `GET path` from the server at `port` of the loopback address. HTTP/1.0, so the body comes in one
/// piece and the server closes the connection.
///
/// # Errors
/// Nobody listens; the connection ends early; what comes is not HTTP.
pub fn get(port: u16, path: &str) -> Result<Response> {
    let mut stream = connect(port).with_context(|| format!("connecting to port {port}"))?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).with_context(|| format!("asking port {port}"))?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).with_context(|| format!("reading from port {port}"))?;
    parse(&bytes).with_context(|| format!("answer of port {port} to {path}"))
}

fn parse(bytes: &[u8]) -> Result<Response> {
    let text = String::from_utf8_lossy(bytes);
    let Some((header, body)) = text.split_once("\r\n\r\n") else {
        bail!("no end of header in {} bytes", bytes.len());
    };
    let status =
        header.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.get(..3)?.parse().ok());
    Ok(Response {
        status: status.with_context(|| format!("no status in {header:?}"))?,
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_are_taken_apart() {
        let response = parse(b"HTTP/1.1 404 Not Found\r\nA: b\r\n\r\ngone\r\n\r\n").unwrap();
        assert_eq!(response, Response { status: 404, body: "gone\r\n\r\n".to_owned() });
        assert_eq!(parse(b"HTTP/1.1 200\r\n\r\n").unwrap().status, 200);
    }

    #[test]
    fn half_an_answer_is_an_error() {
        for bytes in [b"".as_slice(), b"HTTP/1.1 200 OK\r\n", b"SSH-2.0-x\r\n\r\n"] {
            parse(bytes).unwrap_err();
        }
    }
}
