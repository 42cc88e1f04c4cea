//! The runner's side of the agent's port: requests and answers, as `roots/machine/agent.c`
//! describes them.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::container::{Output, wait_until};

/// What the guest may need beside the command itself.
const GRACE: Duration = Duration::from_secs(30);
/// How long an answer to a greeting is waited for before the next one.
const GREETING: Duration = Duration::from_secs(1);
const TIME_IS_UP: i32 = 2000;
const BY_SIGNAL: i32 = 1000;
/// Longer answers are somebody else's bytes.
const MAX_ANSWER: usize = 64 << 20;

/// A connection to the agent of one boot.
#[derive(Debug)]
pub(super) struct Agent {
    stream: Mutex<BufReader<UnixStream>>,
    /// Longest for an answer, on top of what its command may take.
    pub(super) patience: Duration,
    /// The boot that answers.
    pub(super) boot_id: String,
}

impl Agent {
    /// Greet until the agent answers.
    pub(super) fn connect(socket: &Path, bound: Duration) -> Result<Agent> {
        let stream =
            wait_until("QEMU's socket", Duration::from_secs(20), || Ok(Some(UnixStream::connect(socket)?)))?;
        let mut stream = BufReader::new(stream);
        let boot_id = greet(&mut stream, bound, "")?;
        Ok(Agent { boot_id, patience: GRACE, stream: Mutex::new(stream) })
    }

    /// Greet until the agent of another boot answers. On the same connection: QEMU serves one only.
    pub(super) fn wait_next_boot(&mut self, bound: Duration) -> Result<()> {
        let stream = self.stream.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.boot_id = greet(stream, bound, &self.boot_id)?;
        Ok(())
    }

    /// Run a command in the guest.
    pub(super) fn run(&self, words: &[&str], bound: Duration) -> Result<Output> {
        let command = words.join(" ");
        let request: Vec<u8> = words.iter().flat_map(|word| word.bytes().chain([0])).collect();
        let seconds = bound.as_secs().max(1);
        let (status, stdout, stderr) = self
            .exchange(&format!("run {seconds}"), &request, bound)
            .with_context(|| format!("running `{command}` in the guest"))?;
        ensure!(status != TIME_IS_UP, "`{command}` took longer than {seconds} s in the guest");
        Ok(Output {
            command,
            code: (status < BY_SIGNAL).then_some(status),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        })
    }

    /// Connect to a server in the guest, send bytes, and take all that it answers.
    pub(super) fn ask(&self, port: u16, request: &[u8]) -> Result<Vec<u8>> {
        let (status, answer, _) = self.exchange(&format!("ask {port}"), request, GRACE)?;
        match status {
            0 => Ok(answer),
            errno => bail!("port {port} in the guest: {}", std::io::Error::from_raw_os_error(errno)),
        }
    }

    fn exchange(&self, verb: &str, request: &[u8], bound: Duration) -> Result<(i32, Vec<u8>, Vec<u8>)> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream.get_ref().set_read_timeout(Some(bound + self.patience)).context("setting a bound")?;
        stream.get_ref().set_write_timeout(Some(GRACE)).context("setting a bound")?;
        let mut bytes = format!("{verb} {}\n", request.len()).into_bytes();
        bytes.extend(request);
        stream.get_mut().write_all(&bytes).context("asking the agent")?;
        let (status, lengths) = loop {
            let mut line = String::new();
            let count = stream.read_line(&mut line).context("the guest does not answer")?;
            ensure!(count > 0, "QEMU ended");
            // An answer to a greeting that was given up may still come.
            if !line.starts_with("hello ") {
                break parse(&line).with_context(|| format!("the agent says {line:?}"))?;
            }
        };
        let mut read = |length: usize| -> Result<Vec<u8>> {
            ensure!(length <= MAX_ANSWER, "an answer of {length} bytes");
            let mut bytes = vec![0; length];
            stream.read_exact(&mut bytes).context("the guest stopped in mid-answer")?;
            Ok(bytes)
        };
        let (out, err) = (read(lengths[0])?, read(lengths[1])?);
        Ok((status, out, err))
    }
}

fn greet(stream: &mut BufReader<UnixStream>, bound: Duration, other_than: &str) -> Result<String> {
    let end = Instant::now() + bound;
    stream.get_ref().set_read_timeout(Some(GREETING)).context("setting a bound")?;
    let mut nonce = 0_u32;
    let mut line = Vec::new();
    while Instant::now() < end {
        nonce += 1;
        let greeting = format!("hello {nonce}\n");
        // A port that nobody has opened yet takes little; what it took is thrown away.
        stream.get_ref().set_write_timeout(Some(GREETING)).context("setting a bound")?;
        match stream.get_mut().write_all(greeting.as_bytes()) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => {
                return Err(error).context("greeting the agent");
            }
            _ => {}
        }
        let answered = Instant::now() + GREETING;
        while Instant::now() < answered {
            match stream.read_until(b'\n', &mut line) {
                Ok(0) => bail!("QEMU ended"),
                // A part stays for the next time.
                Err(_) => break,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line).trim().to_owned();
            line.clear();
            if let Some(boot_id) = text.strip_prefix(&format!("hello {nonce} "))
                && boot_id != other_than
            {
                return Ok(boot_id.to_owned());
            }
        }
    }
    bail!("the guest's agent did not answer within {} s", bound.as_secs())
}

fn parse(line: &str) -> Option<(i32, [usize; 2])> {
    let mut words = line.trim_end().strip_prefix("done ")?.split(' ');
    let status = words.next()?.parse().ok()?;
    Some((status, [words.next()?.parse().ok()?, words.next()?.parse().ok()?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_an_answer_has_status_and_two_lengths() {
        assert_eq!(parse("done 3 10 0\n"), Some((3, [10, 0])));
        for bad in ["done 3 10\n", "done\n", "hello 1 x\n", "done 1 -1 0\n"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
