//! Tables for terminals: columns padded with spaces, numbers to the right, nothing else.

use std::fmt;

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// For words.
    Left,
    /// For numbers.
    Right,
}

/// A table that is gathered row by row and printed as a whole.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new(columns: &[(&'static str, Align)]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; cells without a column are left out, columns without a cell stay empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| clean(&cell)).collect());
    }
}

/// Names come from files that others may have written: no control characters on the terminal.
fn clean(cell: &str) -> String {
    cell.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings: Vec<String> = self.columns.iter().map(|(heading, _)| heading.to_uppercase()).collect();
        let lines = || std::iter::once(&headings).chain(&self.rows);
        let cell = |line: &[String], column: usize| line.get(column).cloned().unwrap_or_default();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| lines().map(|line| cell(line, column).chars().count()).max().unwrap_or(0))
            .collect();
        for line in lines() {
            let mut text = String::new();
            for (column, ((_, align), &width)) in self.columns.iter().zip(&widths).enumerate() {
                let cell = cell(line, column);
                match align {
                    Align::Left => text.push_str(&format!("{cell:<width$}  ")),
                    Align::Right => text.push_str(&format!("{cell:>width$}  ")),
                }
            }
            writeln!(f, "{}", text.trim_end())?;
        }
        Ok(())
    }
}

/// A count in at most five characters and a unit of 1000: `999`, `1.2k`, `34.5M`.
pub fn count(n: u64) -> String {
    let mut value = n;
    let mut unit = "";
    let mut tenths = 0;
    for next in ["k", "M", "G", "T", "P", "E"] {
        if value < 1000 {
            break;
        }
        tenths = value % 1000 / 100;
        value /= 1000;
        unit = next;
    }
    if unit.is_empty() { value.to_string() } else { format!("{value}.{tenths}{unit}") }
}

/// Seconds as the two largest units: `45s`, `3m20s`, `2h05m`, `3d04h`.
pub fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match () {
        () if days > 0 => format!("{days}d{:02}h", hours % 24),
        () if hours > 0 => format!("{hours}h{:02}m", minutes % 60),
        () if minutes > 0 => format!("{minutes}m{:02}s", seconds % 60),
        () => format!("{seconds}s"),
    }
}

/// What stands in a cell for a value that is not there.
pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_with_text() {
        let mut table = Table::new(&[("name", Align::Left), ("rx", Align::Right), ("reason", Align::Left)]);
        table.row(["web1".into(), count(1_234_567), "-".into()]);
        table.row(["größer-\u{1b}x".into(), count(9), String::new()]);
        let expected = "NAME         RX  REASON\nweb1       1.2M  -\ngrößer-\u{fffd}x     9\n";
        assert_eq!(table.to_string(), expected);
        assert_eq!(Table::new(&[("a", Align::Left), ("b", Align::Right)]).to_string(), "A  B\n");
    }

    #[test]
    fn units() {
        let counts = [0, 999, 1000, 999_999, 12_345_678, u64::MAX].map(count);
        assert_eq!(counts, ["0", "999", "1.0k", "999.9k", "12.3M", "18.4E"]);
        let durations = [0, 59, 60, 3599, 3600, 86_399, 90_000].map(duration);
        assert_eq!(durations, ["0s", "59s", "1m00s", "59m59s", "1h00m", "23h59m", "1d01h"]);
    }
}
