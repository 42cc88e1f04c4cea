//! One redis command per connection.

use std::io::{BufRead, BufReader, Write as _};

use anyhow::{Context as _, Result, bail};

use super::connect;

/// Longest bulk answer that is taken.
const MAX_ANSWER: usize = 1 << 20;

/// Send a command to the redis server at `port` of the loopback address. A missing key is an empty
/// string.
///
/// # Errors
/// Nobody listens; the connection ends early; redis answers with an error.
pub fn command(port: u16, words: &[&str]) -> Result<String> {
    let mut stream = connect(port).with_context(|| format!("connecting to port {port}"))?;
    stream.write_all(encode(words).as_bytes()).with_context(|| format!("asking port {port}"))?;
    decode(&mut BufReader::new(stream)).with_context(|| format!("answer of redis to {}", words.join(" ")))
}

fn encode(words: &[&str]) -> String {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    text
}

fn decode(from: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let line = line.trim_end_matches(['\r', '\n']);
    let Some((kind, rest)) = line.split_at_checked(1) else {
        bail!("the connection was closed");
    };
    match kind {
        "+" | ":" => Ok(rest.to_owned()),
        "$" if rest.starts_with('-') => Ok(String::new()),
        "$" => {
            let len: usize = rest.parse().with_context(|| format!("length {rest:?}"))?;
            if len > MAX_ANSWER {
                bail!("{len} bytes are more than expected");
            }
            let mut bytes = vec![0; len];
            from.read_exact(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        _ => bail!("{line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_an_array_of_bulk_strings() {
        assert_eq!(encode(&["GET", "äb"]), "*2\r\n$3\r\nGET\r\n$3\r\näb\r\n");
    }

    #[test]
    fn answers_of_each_kind_are_read() {
        let answer = |text: &str| decode(&mut text.as_bytes());
        assert_eq!(answer("+PONG\r\n").unwrap(), "PONG");
        assert_eq!(answer(":12\r\n").unwrap(), "12");
        assert_eq!(answer("$4\r\na\r\nb\r\n").unwrap(), "a\r\nb");
        assert_eq!(answer("$-1\r\n").unwrap(), "");
        assert_eq!(answer("-LOADING later\r\n").unwrap_err().to_string(), "-LOADING later");
        for bad in ["", "$9\r\nabc", "$x\r\n"] {
            answer(bad).unwrap_err();
        }
    }
}
