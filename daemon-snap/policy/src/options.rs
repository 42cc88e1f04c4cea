//! The `[X-Fastboot]` section, which systemd ignores: what a unit's text asks of us.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::reason::Reason;
use crate::settings::boolean;
use crate::unit_text::Assignment;

/// Section that is ours.
const SECTION: &str = "X-Fastboot";

/// What happens to connections whose other end will be gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LostPeer {
    /// The unit is not taken.
    #[default]
    Refuse,
    /// They end.
    Close,
}

/// What a service has made in the kernel outside of its processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelState {
    /// The unit is not taken if there is any that a start does not make by itself.
    #[default]
    Refuse,
    /// `AfterRestore=`, or the service when it hears of its restore, makes it again.
    Reload,
}

/// What a service has in memory that is of one machine (ids, names, keys, random numbers), in an
/// image that equal machines use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    /// The unit is not taken into such an image if it has any.
    #[default]
    Refuse,
    /// `AfterRestore=`, or the service when it hears of its restore, makes it anew.
    Renewed,
    /// It has none, whatever it looks like.
    None,
}

/// What `fastboot refresh` may do with a service whose image has become stale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refresh {
    /// It is restarted, as by a snapshot.
    #[default]
    Restart,
    /// The running instance is taken; it is not restarted.
    AsItRuns,
    /// It is left alone.
    No,
}

/// When images of a unit are taken, and how often one is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Once, and at every boot as long as its evidence holds.
    #[default]
    Golden,
    /// Whenever the machine goes down, and at the boot that follows.
    FastRestart,
}

/// The section in fragment and drop-ins together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `DependsOn=` (or `Paths=`): files, directories, patterns whose content counts.
    pub depends_on: Vec<String>,
    /// `IgnoreChanges=`: files, directories, patterns whose content does not count.
    pub ignore_changes: Vec<String>,
    /// `AllowState=yes`: the unit may be taken although it writes to its own state.
    pub allow_state: bool,
    /// `WarmUp=`: a command that is run before the last wait for quiet.
    pub warm_up: Option<String>,
    /// `BeforeSnapshot=`: commands that are run before the freeze.
    pub before_snapshot: Vec<String>,
    /// `AfterRestore=`: commands that are run when it goes on, after a restore and after the
    /// freeze.
    pub after_restore: Vec<String>,
    /// `OnLostPeer=close`: connections to others end, instead of keeping the unit from being taken.
    pub lost_peer: LostPeer,
    /// `KernelState=reload`: what it has made in the kernel is made again after a restore.
    pub kernel_state: KernelState,
    /// `Identity=`: what becomes of what is of one machine in an image for equal machines.
    pub identity: Identity,
    /// `SkipStartPre=yes`: a restored start does without `ExecStartPre=`.
    pub skip_start_pre: bool,
    /// `MaxAge=`: an older image is not used.
    pub max_age: Option<Duration>,
    /// `AllowRepeatedRandom=yes`: the unit may be taken although it may draw the same random numbers
    /// after each restore.
    pub allow_repeated_random: bool,
    /// `Mode=`.
    pub mode: Mode,
    /// `Refresh=`.
    pub refresh: Refresh,
}

/// One key of the section, as texts spell it.
const KEYS: [&str; 15] = [
    "DependsOn",
    "Paths",
    "IgnoreChanges",
    "AllowState",
    "WarmUp",
    "BeforeSnapshot",
    "AfterRestore",
    "OnLostPeer",
    "KernelState",
    "Identity",
    "SkipStartPre",
    "MaxAge",
    "AllowRepeatedRandom",
    "Mode",
    "Refresh",
];

impl Options {
    /// Read the assignments of all files in their order, and say which of those that count are
    /// wrong. A wrong value counts as not given.
    pub fn from_assignments<'a>(
        assignments: impl IntoIterator<Item = &'a Assignment>,
    ) -> (Options, Vec<Reason>) {
        let mut given: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut reasons = Vec::new();
        for assignment in assignments.into_iter().filter(|a| a.section == SECTION) {
            let (key, value) = (assignment.key.as_str(), assignment.value.as_str());
            if !KEYS.contains(&key) {
                reasons.push(Reason::UnknownOption { key: key.to_owned() });
                continue;
            }
            // Two names of one list.
            let key = if key == "Paths" { "DependsOn" } else { key };
            let values = given.entry(key).or_default();
            // An empty value takes back all before it.
            if value.is_empty() { values.clear() } else { values.push(value) }
        }
        let mut reader = Reader { given, reasons };
        let mode = reader.mode("Mode");
        let options = Options {
            depends_on: reader.paths("DependsOn"),
            ignore_changes: reader.paths("IgnoreChanges"),
            allow_state: reader.flag("AllowState"),
            warm_up: reader.last("WarmUp").map(str::to_owned),
            before_snapshot: reader.hooks("BeforeSnapshot"),
            after_restore: reader.hooks("AfterRestore"),
            lost_peer: reader.lost_peer("OnLostPeer", mode),
            kernel_state: reader.kernel_state("KernelState"),
            identity: reader.identity("Identity"),
            skip_start_pre: reader.flag("SkipStartPre"),
            max_age: reader.span("MaxAge"),
            allow_repeated_random: reader.flag("AllowRepeatedRandom"),
            mode,
            refresh: reader.refresh("Refresh"),
        };
        (options, reader.reasons)
    }
}

/// Values that count, by key, and what is wrong with them.
struct Reader<'a> {
    given: BTreeMap<&'a str, Vec<&'a str>>,
    reasons: Vec<Reason>,
}

impl<'a> Reader<'a> {
    fn all(&self, key: &str) -> Vec<&'a str> {
        self.given.get(key).cloned().unwrap_or_default()
    }

    fn last(&self, key: &str) -> Option<&'a str> {
        self.all(key).pop()
    }

    fn refuse(&mut self, key: &'static str, value: &str, wanted: &'static str) {
        self.reasons.push(Reason::OptionValue { key, value: value.to_owned(), wanted });
    }

    fn flag(&mut self, key: &'static str) -> bool {
        let Some(value) = self.last(key) else { return false };
        boolean(value).unwrap_or_else(|| {
            self.refuse(key, value, "yes or no");
            false
        })
    }

    fn span(&mut self, key: &'static str) -> Option<Duration> {
        let value = self.last(key)?;
        let span = span(value);
        if span.is_none() {
            self.refuse(key, value, "a time such as 90 s, 12h or 30d");
        }
        span
    }

    fn mode(&mut self, key: &'static str) -> Mode {
        match self.last(key) {
            None | Some("golden") => Mode::Golden,
            Some("fast-restart") => Mode::FastRestart,
            Some(value) => {
                self.refuse(key, value, "golden or fast-restart");
                Mode::Golden
            }
        }
    }

    /// A machine that goes down ends its connections in any case.
    fn lost_peer(&mut self, key: &'static str, mode: Mode) -> LostPeer {
        match self.last(key) {
            None if mode == Mode::FastRestart => LostPeer::Close,
            None | Some("refuse") => LostPeer::Refuse,
            Some("close") => LostPeer::Close,
            Some(value) => {
                self.refuse(key, value, "close or refuse");
                LostPeer::Refuse
            }
        }
    }

    fn kernel_state(&mut self, key: &'static str) -> KernelState {
        match self.last(key) {
            None | Some("refuse") => KernelState::Refuse,
            Some("reload") => KernelState::Reload,
            Some(value) => {
                self.refuse(key, value, "reload or refuse");
                KernelState::Refuse
            }
        }
    }

    fn identity(&mut self, key: &'static str) -> Identity {
        match self.last(key) {
            None | Some("refuse") => Identity::Refuse,
            Some("renewed") => Identity::Renewed,
            Some("none") => Identity::None,
            Some(value) => {
                self.refuse(key, value, "renewed, none or refuse");
                Identity::Refuse
            }
        }
    }

    fn refresh(&mut self, key: &'static str) -> Refresh {
        match self.last(key) {
            None | Some("restart") => Refresh::Restart,
            Some("as-it-runs") => Refresh::AsItRuns,
            Some("no") => Refresh::No,
            Some(value) => {
                self.refuse(key, value, "restart, as-it-runs or no");
                Refresh::Restart
            }
        }
    }

    /// Absolute paths, or patterns of such as in glob(7).
    fn paths(&mut self, key: &'static str) -> Vec<String> {
        let mut paths = Vec::new();
        for value in self.all(key) {
            let Some(words) = words(value) else {
                self.refuse(key, value, "a list of words with balanced quotes");
                continue;
            };
            for word in words {
                if !word.starts_with('/') {
                    self.refuse(key, &word, "an absolute path");
                } else if glob::Pattern::new(&word).is_err() {
                    self.refuse(key, &word, "a path or a pattern of paths");
                } else {
                    paths.push(word);
                }
            }
        }
        paths
    }

    /// Commands of a shell, with `+` and `-` before them.
    fn hooks(&mut self, key: &'static str) -> Vec<String> {
        let mut commands = Vec::new();
        for value in self.all(key) {
            match value.trim_start_matches(['+', '-']).trim().is_empty() {
                true => self.refuse(key, value, "a command"),
                false => commands.push(value.to_owned()),
            }
        }
        commands
    }
}

/// Numbers with units that are added up, as in systemd.time(7), of those that an age is told in; a
/// bare number is in seconds. `None` for nothing, zero and what is no such text.
fn span(value: &str) -> Option<Duration> {
    let mut seconds: u64 = 0;
    let mut rest = value.trim();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, behind) = rest.split_at(digits);
        let behind = behind.trim_start();
        let letters = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        let unit_s: u64 = match unit {
            "" | "s" | "sec" | "second" | "seconds" => 1,
            "m" | "min" | "minute" | "minutes" => 60,
            "h" | "hr" | "hour" | "hours" => 3600,
            "d" | "day" | "days" => 86_400,
            "w" | "week" | "weeks" => 7 * 86_400,
            _ => return None,
        };
        seconds = seconds.checked_add(number.parse::<u64>().ok()?.checked_mul(unit_s)?)?;
        rest = behind.trim_start();
    }
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// Words at blanks; a word in quotes may have blanks in it. `None` for a quote that is not closed.
fn words(value: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for c in value.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, ' ' | '\t') if word.is_empty() => {}
            (None, ' ' | '\t') => words.push(std::mem::take(&mut word)),
            _ => word.push(c),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit_text::parse;

    fn read(texts: &[&str]) -> (Options, Vec<String>) {
        let assignments: Vec<Assignment> = texts.iter().flat_map(|text| parse(text)).collect();
        let (options, reasons) = Options::from_assignments(&assignments);
        (options, reasons.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn our_section_has_lists_of_words_and_unknown_keys_are_kept() {
        let text = "[X-Fastboot]\nDependsOn=/etc/a/*.conf \"/etc/b c\"\nDependsOn=/etc/d\nPaths=/etc/e\n\
                    IgnoreChanges=/var/cache/a\nAllowState=yes\nWarmUp=curl -s localhost\nColour=blue\n\
                    BeforeSnapshot=a b\nAfterRestore=+c\nAfterRestore=d\nSkipStartPre=yes\nOnLostPeer=close\n\
                    KernelState=reload\nIdentity=renewed\nRefresh=as-it-runs\n";
        let (options, reasons) = read(&[text]);
        assert_eq!(options.depends_on, ["/etc/a/*.conf", "/etc/b c", "/etc/d", "/etc/e"]);
        assert_eq!(options.ignore_changes, ["/var/cache/a"]);
        assert!(options.allow_state && options.skip_start_pre);
        assert_eq!(options.lost_peer, LostPeer::Close);
        assert_eq!(options.kernel_state, KernelState::Reload);
        assert_eq!(options.identity, Identity::Renewed);
        assert_eq!(read(&["[X-Fastboot]\nIdentity=none\n"]).0.identity, Identity::None);
        assert_eq!(options.refresh, Refresh::AsItRuns);
        assert_eq!(options.warm_up.as_deref(), Some("curl -s localhost"));
        assert_eq!(options.before_snapshot, ["a b"]);
        assert_eq!(options.after_restore, ["+c", "d"]);
        assert_eq!(reasons, ["[X-Fastboot] Colour= is not known"]);
        assert!(read(&[text, "[X-Fastboot]\nDependsOn=\n"]).0.depends_on.is_empty());
    }

    #[test]
    fn every_wrong_value_is_named_with_what_its_key_takes() {
        for (line, wanted) in [
            ("AllowState=maybe", "AllowState=maybe is not yes or no"),
            ("AllowRepeatedRandom=perhaps", "AllowRepeatedRandom=perhaps is not yes or no"),
            ("SkipStartPre=2", "SkipStartPre=2 is not yes or no"),
            ("OnLostPeer=foo", "OnLostPeer=foo is not close or refuse"),
            ("MaxAge=soon", "MaxAge=soon is not a time such as 90 s, 12h or 30d"),
            ("MaxAge=0", "MaxAge=0 is not a time such as 90 s, 12h or 30d"),
            ("KernelState=yes", "KernelState=yes is not reload or refuse"),
            ("Identity=mine", "Identity=mine is not renewed, none or refuse"),
            ("Refresh=yes", "Refresh=yes is not restart, as-it-runs or no"),
            ("Mode=fast", "Mode=fast is not golden or fast-restart"),
            ("DependsOn=/etc/a etc/b", "DependsOn=etc/b is not an absolute path"),
            ("Paths=relative", "DependsOn=relative is not an absolute path"),
            ("IgnoreChanges=~/x", "IgnoreChanges=~/x is not an absolute path"),
            ("DependsOn=/etc/[a", "DependsOn=/etc/[a is not a path or a pattern of paths"),
            ("DependsOn=\"/etc/a", "DependsOn=\"/etc/a is not a list of words with balanced quotes"),
            ("AfterRestore=+-", "AfterRestore=+- is not a command"),
        ] {
            let (options, reasons) = read(&[&format!("[X-Fastboot]\n{line}\n")]);
            assert_eq!(reasons, [format!("[X-Fastboot] {wanted}")], "{line}");
            let rest = Options { depends_on: Vec::new(), ..options };
            assert_eq!(rest, Options::default(), "{line}");
        }
    }

    #[test]
    fn connections_end_with_the_machine_unless_the_unit_minds() {
        let lost_peer = |text: &str| read(&[&format!("[X-Fastboot]\n{text}\n")]).0;
        let options = lost_peer("Mode=fast-restart");
        assert_eq!((options.mode, options.lost_peer), (Mode::FastRestart, LostPeer::Close));
        assert_eq!(lost_peer("Mode=fast-restart\nOnLostPeer=refuse").lost_peer, LostPeer::Refuse);
        assert_eq!(lost_peer("Mode=golden").lost_peer, LostPeer::Refuse);
    }

    #[test]
    fn an_age_is_a_sum_of_numbers_with_units() {
        for (value, seconds) in [
            ("90", 90),
            ("90s", 90),
            ("12 h", 43_200),
            ("1d 12h", 129_600),
            ("2weeks", 1_209_600),
            ("1h30min", 5400),
        ] {
            assert_eq!(span(value), Some(Duration::from_secs(seconds)), "{value}");
        }
        for value in ["", "0", "d", "-1", "1.5h", "1 fortnight", "99999999999999999999", "99999999999999999w"]
        {
            assert_eq!(span(value), None, "{value}");
        }
        let (options, reasons) = read(&["[X-Fastboot]\nMaxAge=1d\n"]);
        assert_eq!((reasons.len(), options.max_age), (0, Some(Duration::from_secs(86_400))));
    }

    #[test]
    fn only_values_that_count_are_looked_at() {
        let (options, reasons) = read(&[
            "[X-Fastboot]\nAllowState=maybe\nDependsOn=relative\nOnLostPeer=foo\n",
            "[X-Fastboot]\nAllowState=on\nDependsOn=\nDependsOn=/a\nOnLostPeer=\n[Service]\nAllowState=maybe\n",
        ]);
        assert_eq!(reasons, Vec::<String>::new());
        assert!(options.allow_state);
        assert_eq!(options.depends_on, ["/a"]);
    }
}
