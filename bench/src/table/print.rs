//! Sheets: what a table is printed as, for terminals and for Markdown.
//!
//! Owns: alignment, the forms of spreads, the head that says where a run took place.
//! May depend on: `outcome`, `spread`, `text`.
//! Invariants: both forms show the same cells.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

use super::{Form, spread::Spread};
use crate::{
    outcome::Machine,
    text::{Plain, number},
};

/// Rows of cells below a head; the first column is text, the others are numbers.
pub struct Sheet {
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Sheet {
    pub fn new(head: &[&str]) -> Self {
        Self {
            head: head.iter().map(|&cell| cell.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    pub fn text(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let cells = cells.chain(self.head.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut text = String::new();
        for row in std::iter::once(&self.head).chain(&self.rows) {
            let mut line = String::new();
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let _ = match column {
                    0 => write!(line, "{cell:<width$}"),
                    _ => write!(line, "  {cell:>width$}"),
                };
            }
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }

    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let mut line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        };
        line(&self.head);
        let rule = |column| if column == 0 { "---" } else { "---:" };
        line(
            &(0..self.head.len())
                .map(|column| rule(column).to_owned())
                .collect::<Vec<_>>(),
        );
        for row in &self.rows {
            line(row);
        }
        text
    }
}

/// The cell of what has no value.
pub const NOTHING: &str = "-";

/// `5.10 (4.90..5.30)`, or the number alone if all rounds agree.
pub fn spread(spread: Option<Spread>) -> String {
    let Some(Spread {
        median,
        least,
        most,
    }) = spread
    else {
        return NOTHING.to_owned();
    };
    match least < most {
        true => format!("{} ({}..{})", number(median), number(least), number(most)),
        false => number(median),
    }
}

/// Where and when, and how one would do it again.
pub fn heading(machine: &Machine, command: &str) -> [String; 2] {
    let memory_gib = machine.memory_bytes as f64 / f64::from(1 << 30);
    [
        format!(
            "{}, {} cores, {memory_gib:.0} GiB, Linux {}, {} UTC",
            machine.cpu, machine.cores, machine.kernel, machine.date
        ),
        command.to_owned(),
    ]
}

/// A head, a sheet, and lists of what is to be said below it; an empty list is left out.
pub fn print(heading: &[String; 2], sheet: &Sheet, notes: &[(&str, Vec<String>)], form: Form) {
    let text = match form {
        Form::Markdown => markdown(heading, sheet, notes),
        Form::Text | Form::Json => plain(heading, sheet, notes),
    };
    // A reader that closed the pipe has what it wanted.
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

fn plain(heading: &[String; 2], sheet: &Sheet, notes: &[(&str, Vec<String>)]) -> String {
    let mut text = format!("{}\n\n{}", heading.join("\n"), sheet.text());
    for (title, lines) in notes.iter().filter(|(_, lines)| !lines.is_empty()) {
        let _ = write!(text, "\n{title}:\n  {}\n", listed(lines).join("\n  "));
    }
    text
}

/// Lines may quote a server, or its log.
fn listed(lines: &[String]) -> Vec<String> {
    let one_line = |line: &String| Plain(&line.replace('\n', " / ")).to_string();
    lines.iter().map(one_line).collect()
}

fn markdown(heading: &[String; 2], sheet: &Sheet, notes: &[(&str, Vec<String>)]) -> String {
    let [machine, command] = heading;
    let mut text = format!("{machine}: `{command}`\n\n{}", sheet.markdown());
    for (title, lines) in notes.iter().filter(|(_, lines)| !lines.is_empty()) {
        let _ = write!(text, "\n{title}:\n\n- {}\n", listed(lines).join("\n- "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_have_the_same_cells() {
        let mut sheet = Sheet::new(&["row", "ours"]);
        sheet
            .rows
            .push(vec!["a longer name".to_owned(), number(5.104)]);
        sheet.rows.push(vec!["b|c".to_owned(), number(1_234.4)]);
        assert_eq!(
            sheet.text(),
            "row             ours\na longer name   5.10\nb|c            1 234\n"
        );
        assert_eq!(
            sheet.markdown(),
            "| row | ours |\n| --- | ---: |\n| a longer name | 5.10 |\n| b\\|c | 1 234 |\n"
        );
    }

    #[test]
    fn a_spread_shows_its_range_and_nothing_is_a_dash() {
        let shown = Spread {
            median: 12.34,
            least: 9.0,
            most: 120.0,
        };
        assert_eq!(spread(Some(shown)), "12.3 (9..120)");
        let same = Spread {
            median: 9.0,
            least: 9.0,
            most: 9.0,
        };
        assert_eq!(spread(Some(same)), "9");
        assert_eq!(spread(None), "-");
    }
}
