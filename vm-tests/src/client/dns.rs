//! One DNS question.

use std::net::Ipv4Addr;

use anyhow::{Result, bail, ensure};

use super::exchange;

/// Id of every question; each goes out on a socket of its own.
const ID: [u8; 2] = [0x46, 0x42];

/// Ask the server at `port` of the loopback address for the IPv4 address of `name`.
///
/// # Errors
/// No answer, an error code, or no such address in it.
pub fn resolve(port: u16, name: &str) -> Result<Ipv4Addr> {
    let question = encode(name);
    let answer = exchange(port, &question)?;
    decode(&answer, question.len())
}

/// A question of type A and class IN that asks for recursion.
fn encode(name: &str) -> Vec<u8> {
    let mut bytes = ID.to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// The first record of the answer section must be the address: its name is a pointer into the
/// question.
fn decode(answer: &[u8], question_len: usize) -> Result<Ipv4Addr> {
    let Some((header, rest)) = answer.split_at_checked(question_len) else {
        bail!("{} bytes are no answer", answer.len());
    };
    ensure!(header[..2] == ID && header[2] & 0x80 != 0, "an answer to something else");
    ensure!(header[3] & 0x0f == 0, "the answer is error {}", header[3] & 0x0f);
    match rest {
        [0xc0, 12, 0, 1, 0, 1, _, _, _, _, 0, 4, a, b, c, d, ..] => Ok(Ipv4Addr::new(*a, *b, *c, *d)),
        _ => bail!("no address in the answer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_from_behind_the_question() {
        let question = encode("a.test");
        let mut answer = question.clone();
        answer[2] |= 0x80;
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
        assert_eq!(decode(&answer, question.len()).unwrap(), Ipv4Addr::new(192, 0, 2, 1));
        answer[3] |= 2;
        assert_eq!(decode(&answer, question.len()).unwrap_err().to_string(), "the answer is error 2");
        decode(&question, question.len()).unwrap_err();
        decode(&question[..5], question.len()).unwrap_err();
    }
}
