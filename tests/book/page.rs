//! A page as commands: its blocks, what marks them, what is shown after them.

use crate::repository;

/// What a block may need that a test has not. The page says it above the block: `*Needs root and systemd:*`.
pub(crate) const REASONS: [&str; 5] = [
    "real hardware",
    "root",
    "systemd",
    "other hosts",
    "the toolchain",
];

pub(crate) struct Block {
    /// Of its first command.
    pub(crate) line: usize,
    pub(crate) language: String,
    pub(crate) code: String,
    /// Why it is not run here.
    pub(crate) needs: Option<String>,
    /// What the page says is shown, line by line; `…` stands for anything.
    shown: Vec<String>,
}

pub(crate) struct Page {
    pub(crate) blocks: Vec<Block>,
    text: String,
}

impl Page {
    pub(crate) fn read(path: &str) -> Self {
        let text = std::fs::read_to_string(repository().join(path));
        let text = text.unwrap_or_else(|error| panic!("{path}: {error}"));
        Self {
            blocks: blocks(&text),
            text,
        }
    }

    /// Commands of ours in marked blocks and within sentences, with their lines.
    pub(crate) fn named(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for block in self.blocks.iter().filter(|it| it.needs.is_some()) {
            let lines = block.code.lines().enumerate();
            found.extend(lines.filter_map(|(at, line)| {
                let line = line.trim().trim_start_matches("sudo ");
                line.starts_with("sockudo ")
                    .then(|| (block.line + at, line.to_owned()))
            }));
        }
        for (at, line) in self.text.lines().enumerate() {
            let spans = line.split('`').skip(1).step_by(2);
            let ours = spans.filter(|it| it.starts_with("sockudo "));
            found.extend(ours.map(|it| (at + 1, it.to_owned())));
        }
        found
    }
}

impl Block {
    pub(crate) fn is_run(&self) -> bool {
        self.language == "sh" && self.needs.is_none()
    }

    /// The first line of the page that does not stand in what was shown, after the ones before it.
    pub(crate) fn missing_in(&self, shown: &str) -> Option<&str> {
        let mut lines = shown.lines();
        let mut expected = self
            .shown
            .iter()
            .filter(|it| !["", "…"].contains(&it.trim()));
        expected
            .find(|expected| !lines.any(|line| is_like(line.trim(), expected.trim())))
            .map(String::as_str)
    }
}

fn blocks(text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut lines = text.lines().enumerate();
    let mut above = String::new();
    while let Some((at, line)) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            if !line.trim().is_empty() {
                line.clone_into(&mut above);
            }
            continue;
        };
        let inside: Vec<String> = lines
            .by_ref()
            .map(|(_, line)| line.to_owned())
            .take_while(|line| line != "```")
            .collect();
        if language == "text" && above == "```" {
            // What is shown stands right below its commands.
            found.last_mut().expect("a block above").shown = inside;
            above = language.to_owned();
            continue;
        }
        let needs = above
            .strip_prefix("*Needs ")
            .and_then(|it| it.strip_suffix(":*"));
        found.push(Block {
            line: at + 2,
            language: language.to_owned(),
            code: inside.join("\n"),
            needs: needs.map(str::to_owned),
            shown: Vec::new(),
        });
        above = "```".to_owned();
    }
    found
}

/// Whether the line is what the page says, where `…` stands for anything and spaces are as many as they are.
fn is_like(line: &str, expected: &str) -> bool {
    let even = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (line, expected) = (even(line), even(expected));
    let parts: Vec<&str> = expected.split('…').map(str::trim).collect();
    let [first, .., last] = parts[..] else {
        return line == expected;
    };
    let mut rest = &line[..];
    for (at, part) in parts.iter().enumerate() {
        match rest.find(part) {
            Some(found) if at > 0 || found == 0 => rest = &rest[found + part.len()..],
            _ => return false,
        }
    }
    line.starts_with(first) && line.ends_with(last)
}

/// The name by which a link finds a heading.
pub(crate) fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words
        .chars()
        .filter(|it| it.is_alphanumeric() || [' ', '-', '_'].contains(it));
    kept.map(|it| if it == ' ' { '-' } else { it }).collect()
}

#[test]
fn marks_and_what_is_shown_are_read() {
    let text = "*Needs root:*\n\n```sh\na\n```\n\nWords.\n\n```sh\nb\nc\n```\n\n```text\n1 … 3\n…\nend\n```\n\n```toml\nx = 1\n```\n";
    let blocks = blocks(text);
    assert_eq!(blocks.len(), 3);
    assert_eq!(
        (blocks[0].line, blocks[0].needs.as_deref()),
        (4, Some("root"))
    );
    assert!(!blocks[0].is_run() && blocks[1].is_run() && !blocks[2].is_run());
    assert_eq!(blocks[1].code, "b\nc");
    assert_eq!(blocks[1].missing_in("0\n1 2 3\nanything\n end"), None);
    assert_eq!(blocks[1].missing_in("1 2 3"), Some("end"));
    assert_eq!(blocks[1].missing_in("end\n1  3"), Some("end"));
    assert_eq!(blocks[1].missing_in("21 3\nend"), Some("1 … 3"));
    assert_eq!(anchor("## Scale out, at `last`"), "scale-out-at-last");
}
