//! What the user sees: lines as it goes, one that is rewritten on a terminal, and the table at the end, in 80 columns.

use std::io::{self, IsTerminal};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::print;
use crate::cli::table::{self, Align, Table};

/// Columns that a rewritten line may take.
const WIDTH: usize = 79;
/// Columns of the longest bar.
const BAR: f64 = 28.0;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Frames,
    Bytes,
}

/// The outcome of one test.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Its group: `ping`, `apart`, `tcp`, `frames`, …
    pub(super) test: &'static str,
    /// Between whom.
    pub(super) what: String,
    pub(super) unit: Unit,
    pub(super) sent: u64,
    pub(super) received: u64,
    /// The figure that it is about, for people.
    pub(super) figure: String,
    /// The same for programs: name and value.
    pub(super) value: Option<(&'static str, f64)>,
    /// What went wrong.
    pub(super) wrong: Option<String>,
}

impl Row {
    /// A test that could not even be made.
    pub(super) fn failed(test: &'static str, what: String, why: &anyhow::Error) -> Row {
        let (unit, figure, value) = (Unit::Frames, String::new(), None);
        Row { test, what, unit, sent: 0, received: 0, figure, value, wrong: Some(format!("{why:#}")) }
    }

    fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }

    fn json(&self) -> Value {
        let mut value = json!({
            "test": self.test, "what": self.what, "unit": if self.unit == Unit::Bytes { "bytes" } else { "frames" },
            "sent": self.sent, "received": self.received, "lost": self.lost(),
            "ok": self.wrong.is_none(), "wrong": self.wrong,
        });
        if let Some((name, figure)) = self.value {
            value[name] = json!(figure);
        }
        value
    }
}

/// Standard output.
pub(super) struct Report {
    quiet: bool,
    terminal: bool,
    pub(super) rows: Vec<Row>,
}

impl Report {
    /// `quiet`: nothing but what [`Report::finish`] and the caller print at the end.
    pub(super) fn new(quiet: bool) -> Report {
        Report { quiet, terminal: io::stdout().is_terminal(), rows: Vec::new() }
    }

    /// A line that stays.
    pub(super) fn say(&self, text: impl AsRef<str>) -> io::Result<()> {
        let text = text.as_ref();
        match (self.quiet, self.terminal) {
            (true, _) => Ok(()),
            (_, true) => print(format_args!("\r{:WIDTH$}\r{text}\n", "")),
            _ => print(format_args!("{text}\n")),
        }
    }

    /// A line that the next one takes the place of; on terminals only.
    pub(super) fn live(&self, text: &str) -> io::Result<()> {
        if self.quiet || !self.terminal {
            return Ok(());
        }
        let text: String = text.chars().take(WIDTH).collect();
        print(format_args!("\r{text:WIDTH$}"))
    }

    /// Keeps the outcome of a test; tells of it at once when it went wrong.
    pub(super) fn add(&mut self, row: Row) -> io::Result<()> {
        if let Some(wrong) = &row.wrong {
            self.say(format!("  FAIL     {} {}: {wrong}", row.test, row.what))?;
        }
        self.rows.push(row);
        Ok(())
    }

    /// How many tests went wrong.
    pub(super) fn wrong(&self) -> usize {
        self.rows.iter().filter(|row| row.wrong.is_some()).count()
    }

    /// The outcome of all tests as a table.
    pub(super) fn table(&self) -> String {
        let (left, right) = (Align::Left, Align::Right);
        let columns = [
            ("test", left),
            ("", left),
            ("sent", right),
            ("got", right),
            ("lost", right),
            ("result", right),
            ("", left),
        ];
        let mut table = Table::new(&columns);
        let mut last = "";
        for row in &self.rows {
            let test = if row.test == last { "" } else { row.test };
            last = row.test;
            let amount = |n| match row.unit {
                Unit::Frames => table::count(n),
                Unit::Bytes => format!("{}B", table::count(n)),
            };
            let verdict = if row.wrong.is_some() { "FAIL" } else { "ok" };
            table.row([
                test.to_owned(),
                row.what.clone(),
                amount(row.sent),
                amount(row.received),
                amount(row.lost()),
                row.figure.clone(),
                verdict.to_owned(),
            ]);
        }
        table.to_string()
    }

    /// The outcome of all tests for programs.
    pub(super) fn json(&self) -> Value {
        self.rows.iter().map(Row::json).collect()
    }
}

/// A line in pieces that fit a terminal, broken between words, further ones indented.
pub(super) fn wrap(line: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for part in line.split_inclusive(' ') {
        match lines.last_mut() {
            Some(last)
                if last.trim().is_empty()
                    || last.chars().count() + part.trim_end().chars().count() < WIDTH - 2 =>
            {
                last.push_str(part)
            }
            _ => lines.push(format!("        {part}")),
        }
    }
    lines.iter().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect()
}

/// A bar of so large a part of the longest.
pub(super) fn bar(part: f64) -> String {
    let blocks = (0..).map(f64::from).take_while(|&at| at + 0.5 <= part.min(1.0) * BAR).count();
    format!("{:28}", "#".repeat(blocks))
}

/// Bits a second.
pub(super) fn bits(bytes_a_second: f64) -> String {
    match bytes_a_second * 8.0 {
        rate if rate >= 1e9 => format!("{:.2} Gbit/s", rate / 1e9),
        rate => format!("{:.1} Mbit/s", rate / 1e6),
    }
}

/// Frames a second.
pub(super) fn frames(a_second: f64) -> String {
    match a_second {
        rate if rate >= 1e6 => format!("{:.2} Mfps", rate / 1e6),
        rate => format!("{:.0} kfps", rate / 1e3),
    }
}

/// A round trip.
pub(super) fn time(time: Option<Duration>) -> String {
    match time {
        None => "no answer".to_owned(),
        Some(time) if time < Duration::from_millis(1) => format!("{} us", time.as_micros()),
        Some(time) => format!("{:.1} ms", time.as_secs_f64() * 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_fits_a_terminal_and_says_what_is_wrong() {
        let mut report = Report::new(true);
        let row = |test, sent, received, wrong: Option<&str>| Row {
            test,
            what: "trunk native > packet1".into(),
            unit: Unit::Bytes,
            sent,
            received,
            figure: "12.34 Gbit/s".into(),
            value: Some(("bits_per_second", 12.34e9)),
            wrong: wrong.map(str::to_owned),
        };
        report.add(row("isolated", 987_600_000_000, 987_600_000_000, None)).unwrap();
        report.add(row("isolated", 987_600_000_000, 987_500_000_000, Some("lost"))).unwrap();
        let table = report.table();
        assert!(table.lines().all(|line| line.chars().count() < 80), "{table}");
        assert!(
            table.lines().nth(1).unwrap().ends_with("ok") && table.lines().nth(2).unwrap().ends_with("FAIL")
        );
        assert_eq!(report.wrong(), 1);
        let json = report.json();
        assert_eq!((&json[1]["lost"], &json[0]["ok"]), (&json!(100_000_000), &json!(true)));
        assert_eq!(json[0]["bits_per_second"], json!(12.34e9));
    }

    #[test]
    fn long_lines_are_broken_and_lose_nothing() {
        let long =
            ["received on trunk: 02:00:00:00:00:08 > fa:16:3e:93:cd:38", "VLAN 100", "IPv4", "64 bytes"]
                .join(", ");
        let lines = wrap(&long);
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line.chars().count() < WIDTH - 2), "{lines:?}");
        assert_eq!(lines.concat().replace("        ", " "), long);
        assert_eq!(wrap("  short, line"), ["  short, line"]);
    }

    #[test]
    fn figures() {
        assert_eq!((bar(0.0).trim(), bar(2.0).len(), bar(0.5).trim().len()), ("", 28, 14));
        assert_eq!((bits(1.25e9).as_str(), bits(1e6).as_str()), ("10.00 Gbit/s", "8.0 Mbit/s"));
        assert_eq!((frames(2.5e6).as_str(), frames(750e3).as_str()), ("2.50 Mfps", "750 kfps"));
        assert_eq!(time(Some(Duration::from_micros(61))), "61 us");
    }
}
