//! `ExecStart=`: the shim goes in front, the rest stays exactly as it was written.

use std::fmt;

use crate::reason::Reason;

/// Why a command line cannot be rewritten safely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecLineProblem {
    /// There is nothing behind the prefixes.
    NoProgram,
    /// It begins with a character that may be a prefix of a newer systemd.
    UnknownPrefix,
    /// The name of the program has characters that mean something else in an argument.
    Quoting,
    /// The name of the program has a specifier.
    Specifier,
    /// systemd would simplify the path.
    NotSimplest,
    /// There are several commands.
    SeveralCommands,
}

/// Continues "ExecStart=… ".
impl fmt::Display for ExecLineProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoProgram => "has no program",
            Self::UnknownPrefix => "starts with something that is not understood",
            Self::Quoting => "has a program name that needs quoting",
            Self::Specifier => "has a specifier in the program name",
            Self::NotSimplest => "has a program name that is not in its simplest form",
            Self::SeveralCommands => "has more than one command",
        })
    }
}

/// A command line taken apart as far as needed to put another program in front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecLine<'a> {
    /// `-`, `:`, `+`, `!`, `!!` in the order in which they stand, without `@`.
    pub prefixes: String,
    /// `@`: the word after the path is the program's `argv[0]`.
    pub has_argv0: bool,
    /// Path and arguments, verbatim.
    pub command: &'a str,
    /// First word of the command.
    pub path: &'a str,
}

impl<'a> ExecLine<'a> {
    /// Take apart what stands after `ExecStart=`.
    ///
    /// # Errors
    /// For a form of which we cannot be sure that systemd reads it as an argument the way it reads
    /// it as a path.
    pub fn parse(value: &'a str) -> Result<ExecLine<'a>, Reason> {
        let refuse = |problem| Err(Reason::ExecLine { line: value.to_owned(), problem });
        let command = value.trim_start_matches(['-', '@', ':', '+', '!']);
        let flags = &value[..value.len() - command.len()];
        let path = command.split([' ', '\t']).next().unwrap_or_default();
        if path.is_empty() {
            return refuse(ExecLineProblem::NoProgram);
        }
        // `|` came with systemd 258 and runs a shell; an unknown character may be the next such
        // prefix.
        if !path.starts_with(|c: char| c == '/' || c.is_ascii_alphanumeric()) {
            return refuse(ExecLineProblem::UnknownPrefix);
        }
        // In the path these mean themselves, in an argument systemd would expand or unquote them
        // (or the other way).
        if path.contains(['"', '\'', '\\', '$', ';', '*', '?']) {
            return refuse(ExecLineProblem::Quoting);
        }
        if path.contains('%') {
            return refuse(ExecLineProblem::Specifier);
        }
        // systemd simplifies the path that becomes argv[0].
        if path.contains("//") || path.contains("/./") || path.contains("/../") || path.ends_with('/') {
            return refuse(ExecLineProblem::NotSimplest);
        }
        if command.split([' ', '\t']).any(|word| word == ";") {
            return refuse(ExecLineProblem::SeveralCommands);
        }
        let prefixes = flags.replace('@', "");
        Ok(ExecLine { prefixes, has_argv0: flags.contains('@'), command, path })
    }

    /// The same line with the shim in front. `options` are words that need no quoting.
    pub fn with_shim(&self, shim: &str, unit: &str, options: &[&str]) -> String {
        // The only character of a unit name that means something in a command line.
        let unit = unit.replace('\\', "\\\\");
        let mut line = format!("{}{shim} --unit {unit}", self.prefixes);
        let argv0 = self.has_argv0.then_some("--argv0");
        for option in argv0.iter().chain(options) {
            line.push(' ');
            line.push_str(option);
        }
        line + " -- " + self.command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite(value: &str) -> Result<String, Reason> {
        Ok(ExecLine::parse(value)?.with_shim("/shim", "a.service", &[]))
    }

    #[test]
    fn every_prefix_is_kept_in_front_of_the_shim() {
        for prefix in ["", "-", ":", "+", "!", "!!", "-:", ":-", "+-", "-!!"] {
            let line = format!("{prefix}/bin/daemon --flag");
            let expected = format!("{prefix}/shim --unit a.service -- /bin/daemon --flag");
            assert_eq!(rewrite(&line).unwrap(), expected);
        }
    }

    #[test]
    fn the_at_prefix_becomes_an_option_and_the_words_stay() {
        let expected = "-:/shim --unit a.service --argv0 -- /bin/daemon name $OPTS \"${A} b\"";
        assert_eq!(rewrite("-@:/bin/daemon name $OPTS \"${A} b\"").unwrap(), expected);
    }

    #[test]
    fn arguments_stay_verbatim_with_quotes_specifiers_and_escapes() {
        let command = "/bin/d 'a b' \"c\\n\" %i %% $$ ${X} $Y \\; \\x20 a;b";
        let expected = format!("/shim --unit a.service -- {command}");
        assert_eq!(rewrite(command).unwrap(), expected);
    }

    #[test]
    fn a_backslash_in_the_unit_name_is_escaped() {
        let line =
            ExecLine::parse("/bin/d").unwrap().with_shim("/shim", "a\\x2db@c.service", &["--no-notify"]);
        assert_eq!(line, "/shim --unit a\\\\x2db@c.service --no-notify -- /bin/d");
    }

    #[test]
    fn a_program_without_a_path_is_kept() {
        assert_eq!(rewrite("nginx -g x").unwrap(), "/shim --unit a.service -- nginx -g x");
    }

    #[test]
    fn forms_that_mean_something_else_as_an_argument_are_refused() {
        let lines = [
            "",
            "-",
            "@ /bin/d",
            "|/bin/d",
            "\"/bin/my d\" x",
            "\"-/bin/d\"",
            "/bin/$X",
            "/bin/%i",
            "/bin\\x2fd",
            "//bin/d",
            "/usr/../bin/d",
            "/bin/a ; /bin/b",
            "/bin/d/",
        ];
        for line in lines {
            assert!(rewrite(line).is_err(), "{line:?} was accepted");
        }
    }
}
