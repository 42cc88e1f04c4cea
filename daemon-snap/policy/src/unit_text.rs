//! The syntax of unit files: sections, assignments, continued lines, comments. The snapshot and the
//! generator read them alike. Meaning may not live here.

/// One assignment, as systemd would hand it to its parser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// `Service` for `[Service]`.
    pub section: String,
    /// What stands before the first `=`.
    pub key: String,
    /// What stands after it: continued lines joined by a blank, white space around it removed.
    pub value: String,
}

/// Read the assignments of one file, in order. Lines that systemd would ignore with a warning are
/// left out.
pub fn parse(text: &str) -> Vec<Assignment> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut assignments = Vec::new();
    let mut section = String::new();
    let mut continued: Option<String> = None;
    for line in text.split('\n') {
        let line = line.trim_end_matches('\r');
        let stripped = line.trim_start_matches(WHITESPACE);
        // A comment between continued lines does not end them.
        if stripped.starts_with(['#', ';']) {
            continue;
        }
        let mut logical = match continued.take() {
            Some(before) => before + line,
            None => stripped.to_owned(),
        };
        let backslashes = logical.len() - logical.trim_end_matches('\\').len();
        if backslashes % 2 == 1 {
            logical.pop();
            logical.push(' ');
            continued = Some(logical);
            continue;
        }
        take_line(&logical, &mut section, &mut assignments);
    }
    if let Some(logical) = continued {
        take_line(&logical, &mut section, &mut assignments);
    }
    assignments
}

const WHITESPACE: [char; 4] = [' ', '\t', '\n', '\r'];

fn take_line(line: &str, section: &mut String, assignments: &mut Vec<Assignment>) {
    let line = line.trim_matches(WHITESPACE);
    if let Some(name) = line.strip_prefix('[') {
        // A broken header swallows what follows it, as it does in systemd.
        *section = name.strip_suffix(']').unwrap_or_default().to_owned();
    } else if let Some((key, value)) = line.split_once('=') {
        assignments.push(Assignment {
            section: section.clone(),
            key: key.trim_matches(WHITESPACE).to_owned(),
            value: value.trim_matches(WHITESPACE).to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<(String, String, String)> {
        parse(text).into_iter().map(|a| (a.section, a.key, a.value)).collect()
    }

    fn assignment(section: &str, key: &str, value: &str) -> (String, String, String) {
        (section.to_owned(), key.to_owned(), value.to_owned())
    }

    #[test]
    fn sections_and_assignments_are_read_in_order() {
        let text =
            "# head\n[Unit]\nDescription = a = b \n\n[Service]\r\nExecStart=/bin/a\r\n ExecStart=/bin/b\n";
        let expected = [
            assignment("Unit", "Description", "a = b"),
            assignment("Service", "ExecStart", "/bin/a"),
            assignment("Service", "ExecStart", "/bin/b"),
        ];
        assert_eq!(values(text), expected);
    }

    #[test]
    fn continued_lines_are_joined_and_comments_between_them_dropped() {
        let text = "[Service]\nExecStart=/bin/a \\\n  # not this\n  one \\\n; nor this\n  two\nType=exec";
        let expected = [
            assignment("Service", "ExecStart", "/bin/a    one    two"),
            assignment("Service", "Type", "exec"),
        ];
        assert_eq!(values(text), expected);
    }

    #[test]
    fn an_escaped_backslash_at_the_end_does_not_continue_the_line() {
        let text = "[Service]\nExecStart=/bin/a \\\\\nType=exec";
        let expected =
            [assignment("Service", "ExecStart", "/bin/a \\\\"), assignment("Service", "Type", "exec")];
        assert_eq!(values(text), expected);
    }

    #[test]
    fn a_continued_last_line_and_a_byte_order_mark_are_taken() {
        assert_eq!(values("\u{feff}[Service]\nType=exec \\"), [assignment("Service", "Type", "exec")]);
    }
}
