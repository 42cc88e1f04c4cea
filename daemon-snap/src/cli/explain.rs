//! What a code of a reason means and what to do about it, in the words of `docs/reasons.md`.

const REASONS: &str = include_str!("../../../docs/reasons.md");

/// The entry of a code, as one paragraph without marks.
pub fn explain(code: &str) -> Option<String> {
    let head = format!("- `{code}`");
    let mut lines = REASONS.lines().skip_while(|line| !line.starts_with(&head));
    let (_, first) = lines.next()?.split_once(": ")?;
    let rest = lines.take_while(|line| line.starts_with("  "));
    let words: Vec<&str> = std::iter::once(first).chain(rest).flat_map(str::split_whitespace).collect();
    Some(words.join(" ").replace('`', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_page_is_explained() {
        let said = explain("needs-reload").unwrap();
        assert!(
            said.starts_with("Files of the unit changed") && said.ends_with("restart the service."),
            "{said}"
        );
        assert!(explain("zombie-of-outside").unwrap().contains("outside the tree has not waited"));
        assert_eq!(explain("no-such-code"), None);
        let codes = REASONS.lines().filter_map(|line| line.strip_prefix("- `")?.split('`').next());
        let unexplained: Vec<&str> = codes.filter(|code| explain(code).is_none()).collect();
        assert_eq!(unexplained, Vec::<&str>::new());
    }
}
