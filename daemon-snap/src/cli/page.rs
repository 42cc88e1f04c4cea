//! What a command prints on standard output: paragraphs and tables that fit into the terminal's
//! width, and a pager where they do not fit into its height.
//!
//! As systemd's tools do it: no borders, colour on a terminal only, `$COLUMNS` before the
//! terminal's own word, 80 columns where there is neither, `$SYSTEMD_PAGER`, `$PAGER` or less.

use comfy_table::{Cell, Color, ColumnConstraint, ContentArrangement, Table, Width, presets::NOTHING};
use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _, stdout};
use std::process::{Command, Stdio};

/// Columns where nobody says how many there are.
const DEFAULT_WIDTH: u16 = 80;
/// In fewer nothing can be read.
const LEAST_WIDTH: u16 = 40;
/// Blanks between two columns of a table.
const GAP: u16 = 2;
/// What less is told where `$LESS` says nothing: quit if all fits, colours, no clearing, and chop
/// nothing, because nothing is too long. As systemd has it.
const LESS: &str = "FRXMK";

/// Output that is shown as a whole.
#[derive(Debug)]
pub struct Page {
    text: String,
    width: u16,
    is_coloured: bool,
}

/// How a column of a table is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Words on the left, as wide as the longest.
    Text(&'static str),
    /// Figures, on the right.
    Figure(&'static str),
    /// What remains of the width; folded at blanks.
    Rest(&'static str),
}

/// What an outcome says to somebody who looks at colours only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Good,
    /// Not what was hoped for.
    Poor,
    Bad,
}

impl Page {
    /// An empty one for this standard output.
    pub fn new() -> Self {
        let is_terminal = stdout().is_terminal();
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var("TERM").is_ok_and(|term| term == "dumb");
        Self { text: String::new(), width: width(is_terminal), is_coloured: is_terminal && !is_plain }
    }

    /// An empty one for standard error, without colours.
    pub fn for_errors() -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        Self { text: String::new(), width: width(is_terminal), is_coloured: false }
    }

    /// A paragraph.
    pub fn say(&mut self, text: impl Display) {
        self.item("", "", text);
    }

    /// A paragraph behind a mark; its further lines begin below `indent`.
    pub fn item(&mut self, mark: &str, indent: &str, text: impl Display) {
        // A path is not broken at its hyphens: who copies it wants it whole.
        let options = textwrap::Options::new(usize::from(self.width))
            .initial_indent(mark)
            .subsequent_indent(indent)
            .word_separator(textwrap::WordSeparator::AsciiSpace)
            .word_splitter(textwrap::WordSplitter::NoHyphenation);
        for line in textwrap::wrap(&text.to_string(), options) {
            self.text.push_str(line.trim_end());
            self.text.push('\n');
        }
    }

    /// An empty line.
    pub fn gap(&mut self) {
        self.text.push('\n');
    }

    /// A table of these columns.
    pub fn table(&mut self, columns: &[Column], rows: impl IntoIterator<Item = Vec<Cell>>) {
        let mut table = Table::new();
        table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(self.width);
        if self.is_coloured {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(columns.iter().map(|column| Cell::new(column.name())));
        table.add_rows(rows);
        let rows: Vec<&comfy_table::Row> = table.row_iter().collect();
        let natural = |index: usize| {
            let cells = rows.iter().filter_map(|row| row.cell_iter().nth(index));
            let lines = cells.map(|cell| cell.content()).collect::<Vec<_>>();
            let name = columns[index].name().to_owned();
            let widths =
                lines.iter().chain([&name]).flat_map(|text| text.lines().map(console::measure_text_width));
            widths.max().unwrap_or(0) as u16
        };
        let mut widths: Vec<u16> = (0..columns.len()).map(natural).collect();
        fit(&mut widths, columns, self.width);
        for (index, (column, width)) in columns.iter().zip(widths).enumerate() {
            let Some(laid_out) = table.column_mut(index) else { continue };
            let gap = if index + 1 == columns.len() { 0 } else { GAP };
            laid_out
                .set_padding((0, gap))
                .set_constraint(ColumnConstraint::Absolute(Width::Fixed(width + gap)));
            if matches!(column, Column::Figure(_)) {
                laid_out.set_cell_alignment(comfy_table::CellAlignment::Right);
            }
        }
        for line in table.lines() {
            self.text.push_str(line.trim_end());
            self.text.push('\n');
        }
    }

    /// Prints it, through a pager where it is longer than the terminal.
    pub fn show(self) {
        let text = self.text;
        let (height, _) = console::Term::stdout().size();
        if !stdout().is_terminal() || text.lines().count() < usize::from(height) || !page(&text) {
            super::common::say_text(&text);
        }
    }
}

impl Page {
    /// Prints it on standard error.
    pub fn tell(self) {
        eprint!("{}", self.text);
    }
}

impl Column {
    fn name(self) -> &'static str {
        match self {
            Self::Text(name) | Self::Figure(name) | Self::Rest(name) => name,
        }
    }
}

/// Gives the last column what remains, and the longest of the others less where that is too little.
fn fit(widths: &mut [u16], columns: &[Column], whole: u16) {
    /// What a sentence needs to be read.
    const LEAST_REST: u16 = 24;
    /// Names may be folded down to this.
    const LEAST_TEXT: u16 = 12;
    let gaps = GAP * (columns.len().saturating_sub(1)) as u16;
    let is_rest = |index: usize| matches!(columns[index], Column::Rest(_));
    loop {
        let fixed: u16 = (0..widths.len()).filter(|&index| !is_rest(index)).map(|index| widths[index]).sum();
        let wanted =
            (0..widths.len()).filter(|&index| is_rest(index)).map(|index| widths[index]).sum::<u16>();
        let left = whole.saturating_sub(fixed + gaps);
        if left >= wanted.min(LEAST_REST) {
            for (width, _) in widths.iter_mut().zip(columns).filter(|(_, c)| matches!(c, Column::Rest(_))) {
                *width = left.max(1).min((*width).max(1));
            }
            return;
        }
        let texts = (0..widths.len()).filter(|&index| matches!(columns[index], Column::Text(_)));
        match texts.max_by_key(|&index| widths[index]).filter(|&index| widths[index] > LEAST_TEXT) {
            Some(index) => widths[index] -= 1,
            None => {
                let rest = (0..widths.len()).find(|&index| is_rest(index));
                if let Some(index) = rest {
                    widths[index] = left.max(1);
                }
                return;
            }
        }
    }
}

/// A cell with an outcome.
pub fn outcome(text: impl Display, mood: Mood) -> Cell {
    let colour = match mood {
        Mood::Good => Color::Green,
        Mood::Poor => Color::Yellow,
        Mood::Bad => Color::Red,
    };
    Cell::new(text.to_string()).fg(colour)
}

/// Columns of standard output.
pub fn columns() -> u16 {
    width(stdout().is_terminal())
}

fn width(is_terminal: bool) -> u16 {
    let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse::<u16>().ok());
    let seen = || console::Term::stdout().size_checked().map(|(_, columns)| columns);
    let width = told.filter(|columns| *columns > 0).or_else(|| seen().filter(|_| is_terminal));
    width.unwrap_or(DEFAULT_WIDTH).max(LEAST_WIDTH)
}

/// Whether somebody has been shown it. Without a pager, or with one that is switched off (empty or
/// `cat`), nobody has.
fn page(text: &str) -> bool {
    let named = ["SYSTEMD_PAGER", "PAGER"].iter().find_map(|name| std::env::var(name).ok());
    let command = named.unwrap_or_else(|| "less".to_owned());
    if command.trim().is_empty() || command.trim() == "cat" {
        return false;
    }
    let less = std::env::var("SYSTEMD_LESS").unwrap_or_else(|_| LESS.to_owned());
    let pager = Command::new("/bin/sh")
        .args(["-c", &format!("command -v {command} > /dev/null && exec {command}")])
        .env("LESS", less)
        .stdin(Stdio::piped())
        .spawn();
    let Ok(mut pager) = pager else { return false };
    // Who leaves the pager has read enough.
    let _ = pager.stdin.take().map(|mut stdin| stdin.write_all(text.as_bytes()));
    pager.wait().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(width: u16) -> Page {
        Page { text: String::new(), width, is_coloured: false }
    }

    const COLUMNS: [Column; 4] =
        [Column::Text("UNIT"), Column::Text("START"), Column::Figure("TIME"), Column::Rest("WHY")];

    fn rows() -> Vec<Vec<Cell>> {
        let long =
            "/etc/a-directory-with-a-name/that-is-longer-than-a-column-has-room-for/redis.conf changed";
        let name = "a-service-with-a-very-long-name-as-some-instances-have@with-a-long-instance.service";
        [("nginx.service", "restored", "12 ms", ""), (name, "cold", "–", long)]
            .map(|(unit, start, time, why)| [unit, start, time, why].map(Cell::new).to_vec())
            .to_vec()
    }

    #[test]
    fn no_line_of_a_table_or_a_paragraph_is_wider_than_the_terminal() {
        for width in [40, 60, 80, 120, 200] {
            let mut page = page(width);
            page.say("word ".repeat(60));
            page.item("  → ", "    ", "/a/path/without/blanks".repeat(9));
            page.table(&COLUMNS, rows());
            let longest = page.text.lines().map(console::measure_text_width).max();
            assert!(longest <= Some(usize::from(width)), "{width}:\n{}", page.text);
            assert!(!page.text.lines().any(|line| line.ends_with(' ')), "{}", page.text);
        }
    }

    #[test]
    fn a_table_has_no_borders_and_nothing_of_a_cell_is_lost() {
        let mut page = page(80);
        page.table(&COLUMNS, [["a.service", "cold", "–", "why"].map(Cell::new).to_vec()]);
        assert_eq!(page.text, "UNIT       START  TIME  WHY\na.service  cold      –  why\n");
        let mut page = self::page(40);
        page.table(&COLUMNS, rows());
        let letters: String = page.text.chars().filter(|c| !c.is_whitespace()).collect();
        assert_eq!(letters.matches('@').count(), 1);
        assert!(page.text.contains("changed") && !page.text.contains('…'), "{}", page.text);
    }
}
