//! Mistakes with their place: [`Diagnostic`], and [`Report`], which collects them while a text is read.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use serde::Serialize;

/// One mistake in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The file as it was named.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// How many characters of the line are meant, at least 1.
    pub length: usize,
    /// The object and its key: `port[web1].interface.kind`. Empty for a mistake of TOML's syntax.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// The mistake for people: its line of the source, what is meant underlined, and the hint. `source` is the text
    /// that was loaded; no trailing newline.
    pub fn render(&self, source: &str) -> String {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let line = source.split('\n').nth(self.line.saturating_sub(1)).unwrap_or("");
        let line = line.strip_suffix('\r').unwrap_or(line);
        // A terminal must not obey what stands in the file.
        let shown: String =
            line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect();
        let before = line.chars().chain(std::iter::repeat(' ')).take(self.column.saturating_sub(1));
        let indent: String = before.map(|c| if c == '\t' { c } else { ' ' }).collect();
        let mut text = format!("error: {}{}\n", self.subject(), self.message);
        text += &format!("{margin}--> {}:{}:{}\n", self.file, self.line, self.column);
        text += &format!("{margin} |\n{number} | {shown}\n{margin} | {indent}{}", "^".repeat(self.length));
        if let Some(hint) = &self.hint {
            text += &format!("\n{margin} = hint: {hint}");
        }
        text
    }

    /// The path in words, with a colon behind it: `port "web1": interface.kind: `.
    fn subject(&self) -> String {
        let object = self.path.split_once('[').and_then(|(kind, rest)| Some((kind, rest.rsplit_once(']')?)));
        match object {
            Some((kind, (name, key))) => {
                let key = key.strip_prefix('.').map(|key| format!("{key}: ")).unwrap_or_default();
                let name = if name.starts_with('#') { name.to_owned() } else { format!("\"{name}\"") };
                format!("{kind} {name}: {key}")
            }
            None if self.path.is_empty() => String::new(),
            None => format!("{}: ", self.path),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}{}", self.file, self.line, self.column, self.subject(), self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// Stands for a value that could not be read; its mistake is in the [`Report`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reported;

/// Collects mistakes of one text.
pub(super) struct Report<'s> {
    file: &'s str,
    source: &'s str,
    /// Offset of the first byte of each line.
    lines: Vec<usize>,
    found: RefCell<Vec<Diagnostic>>,
}

impl<'s> Report<'s> {
    pub(super) fn new(source: &'s str, file: &'s str) -> Report<'s> {
        let lines = std::iter::once(0).chain(source.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Report { file, source, lines, found: RefCell::default() }
    }

    /// Notes a mistake in the bytes `span` of the text.
    pub(super) fn add(
        &self,
        span: Range<usize>,
        path: &str,
        message: impl Into<String>,
        hint: Option<String>,
    ) -> Reported {
        let line = self.line(span.start);
        let start = self.lines[line - 1];
        let text = self.source[start..].split('\n').next().unwrap_or("").trim_end_matches('\r');
        let columns = |end: usize| text.char_indices().take_while(|(at, _)| start + at < end).count();
        let before = columns(span.start);
        self.found.borrow_mut().push(Diagnostic {
            file: self.file.to_owned(),
            line,
            column: before + 1,
            length: columns(span.end).saturating_sub(before).max(1),
            path: printable(path),
            message: printable(&message.into()),
            hint: hint.as_deref().map(printable),
        });
        Reported
    }

    /// The line of a byte, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at).max(1)
    }

    pub(super) fn file(&self) -> &str {
        self.file
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// Everything found, in the order of the text.
    pub(super) fn into_sorted(self) -> Vec<Diagnostic> {
        let mut found = self.found.into_inner();
        found.sort_by(|a, b| (a.line, a.column, &a.path).cmp(&(b.line, b.column, &b.path)));
        found.dedup();
        found
    }
}

/// Messages repeat what stands in the file; control characters in it must not reach a terminal.
fn printable(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// The candidate nearest to `word`, when it is near enough to be meant.
pub(super) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let limit = (word.chars().count() / 3).max(1);
    let near = candidates.into_iter().map(|candidate| (distance(word, candidate), candidate));
    near.filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// Insertions, deletions, substitutions and swaps of neighbours between two words (optimal string alignment). Words
/// beyond 64 characters are never alike: this bounds the work.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let swap = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                let swap = if swap { rows[i - 2][j - 2] + 1 } else { usize::MAX };
                change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(swap)
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found() {
        let keys = ["name", "network", "mac_address", "mac_limit"];
        assert_eq!(nearest("netwrok", keys), Some("network"));
        assert_eq!(nearest("mac_adress", keys), Some("mac_address"));
        assert_eq!(nearest("nmae", keys), Some("name"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("abc", "acb"), 1);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn the_underline_stands_under_what_is_meant() {
        let source = "a = 1\n\tß = \"x\u{1b}[2J\"\r\n";
        let report = Report::new(source, "f.toml");
        let at = source.find('"').unwrap();
        report.add(at..source.find('\r').unwrap(), "port[p].ß", "no", Some("yes".into()));
        let found = report.into_sorted();
        assert_eq!(found[0].to_string(), "f.toml:2:6: port \"p\": ß: no (yes)");
        assert_eq!(
            found[0].render(source),
            "error: port \"p\": ß: no\n --> f.toml:2:6\n  |\n2 | \tß = \"x\u{fffd}[2J\"\n  | \t    ^^^^^^^\n  = hint: yes"
        );
    }
}
