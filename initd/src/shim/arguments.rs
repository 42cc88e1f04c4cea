//! The shim's command line, as the generator writes it.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

/// Longest until the original command is executed, unless the generator says otherwise.
const DEFAULT_LIMIT: Duration = Duration::from_secs(13);

/// A command of `ExecStartPre=` that only a cold start runs: `--pre FLAGS PROGRAM [ARGUMENT…]
/// --pre-end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreCommand {
    /// `-`: its failure changes nothing.
    pub may_fail: bool,
    /// Program as written in the unit file.
    pub program: CString,
    /// Its arguments, `argv[0]` included.
    pub argv: Vec<CString>,
}

/// `--unit UNIT [--argv0] [--no-notify] [--say-ready] [--limit-ms MS] [--pre …]… -- PROGRAM
/// [ARGUMENT…]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShimArguments {
    /// Unit that we stand in for.
    pub unit: String,
    /// The unit had no `NOTIFY_SOCKET` before us, and must not find one.
    pub hides_notify_socket: bool,
    /// systemd waits for a word that the service itself does not send: say it before a cold start.
    pub says_ready: bool,
    /// When it has passed the original command is executed, whatever initd says: the rest of the
    /// unit's `TimeoutStartSec=` belongs to it.
    pub limit: Duration,
    /// What a cold start runs first.
    pub pre: Vec<PreCommand>,
    /// Program as written in the unit file.
    pub program: CString,
    /// Its arguments, `argv[0]` included.
    pub argv: Vec<CString>,
}

impl ShimArguments {
    /// Read the command line; the first word is our own name.
    ///
    /// # Errors
    /// A sentence saying what is wrong.
    pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<ShimArguments, String> {
        let mut words = words.into_iter().skip(1);
        let mut unit = None;
        let (mut has_argv0, mut hides_notify_socket, mut says_ready) = (false, false, false);
        let mut limit = Some(DEFAULT_LIMIT);
        let mut pre = Vec::new();
        loop {
            let word = words.next().ok_or("no program is given")?;
            match word.to_str() {
                Some("--unit") => unit = words.next().and_then(|name| name.into_string().ok()),
                Some("--argv0") => has_argv0 = true,
                Some("--no-notify") => hides_notify_socket = true,
                Some("--say-ready") => says_ready = true,
                Some("--limit-ms") => {
                    let ms = words.next().and_then(|ms| ms.to_str()?.parse().ok());
                    limit = ms.map(Duration::from_millis);
                }
                Some("--pre") => pre.push(pre_command(&mut words)?),
                Some("--") => break,
                _ => return Err(format!("unknown option {}", word.to_string_lossy())),
            }
        }
        let mut argv: Vec<CString> = words.map(to_c).collect();
        let program = argv.first().ok_or("no program is given")?.clone();
        if has_argv0 && argv.len() > 1 {
            argv.remove(0);
        }
        let unit = unit.filter(|unit| !unit.is_empty()).ok_or("no unit is given")?;
        let limit = limit.ok_or("--limit-ms is no number")?;
        Ok(ShimArguments { unit, hides_notify_socket, says_ready, limit, pre, program, argv })
    }
}

fn pre_command(words: &mut impl Iterator<Item = OsString>) -> Result<PreCommand, String> {
    let flags = words.next().and_then(|flags| flags.into_string().ok()).ok_or("--pre has no flags")?;
    let mut argv = Vec::new();
    loop {
        match words.next().ok_or("--pre has no end")? {
            word if word == "--pre-end" => break,
            word => argv.push(to_c(word)),
        }
    }
    let program = argv.first().ok_or("--pre has no program")?.clone();
    if flags.contains('@') && argv.len() > 1 {
        argv.remove(0);
    }
    Ok(PreCommand { may_fail: flags.contains('-'), program, argv })
}

/// Arguments cannot contain NUL, they were C strings; a word that did would end there.
fn to_c(word: OsString) -> CString {
    CString::new(word.into_vec()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<ShimArguments, String> {
        ShimArguments::parse(words.iter().map(OsString::from))
    }

    fn argv(arguments: &ShimArguments) -> Vec<&str> {
        arguments.argv.iter().map(|word| word.to_str().unwrap()).collect()
    }

    #[test]
    fn the_program_is_its_own_first_argument_unless_told_otherwise() {
        let plain = parse(&["shim", "--unit", "a.service", "--", "/bin/d", "--", "-x"]).unwrap();
        assert_eq!((plain.unit.as_str(), plain.hides_notify_socket), ("a.service", false));
        assert_eq!(argv(&plain), ["/bin/d", "--", "-x"]);
        let named =
            parse(&["shim", "--unit", "a", "--argv0", "--no-notify", "--", "/bin/d", "name", "-x"]).unwrap();
        assert_eq!((named.program.to_str().unwrap(), named.hides_notify_socket), ("/bin/d", true));
        assert_eq!(argv(&named), ["name", "-x"]);
    }

    #[test]
    fn the_limit_is_the_generator_s_word_or_a_default() {
        let limit = |words: &[&str]| parse(words).unwrap().limit.as_millis();
        assert_eq!(limit(&["shim", "--unit", "a", "--", "/bin/d"]), 13_000);
        assert_eq!(limit(&["shim", "--limit-ms", "750", "--unit", "a", "--", "/bin/d"]), 750);
        parse(&["shim", "--unit", "a", "--limit-ms", "soon", "--", "/bin/d"]).unwrap_err();
    }

    #[test]
    fn commands_before_a_cold_start_keep_their_words() {
        let words =
            ["shim", "--unit", "a", "--pre", "-@", "/bin/p", "name", "--", "--pre-end", "--", "/bin/d"];
        let arguments = parse(&words).unwrap();
        let [pre] = arguments.pre.as_slice() else { panic!("{arguments:?}") };
        let argv: Vec<&str> = pre.argv.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!((pre.may_fail, pre.program.to_str().unwrap(), argv), (true, "/bin/p", vec!["name", "--"]));
        parse(&words[..9]).unwrap_err();
        parse(&["shim", "--unit", "a", "--pre", ".", "--pre-end", "--", "/bin/d"]).unwrap_err();
    }

    #[test]
    fn incomplete_command_lines_are_refused() {
        for words in [
            &["shim"][..],
            &["shim", "--unit", "a", "--"],
            &["shim", "--", "/bin/d"],
            &["shim", "--unit", "a", "/bin/d"],
            &["shim", "--unit"],
        ] {
            parse(words).unwrap_err();
        }
    }
}
