//! The documents, taken apart: what a reader could type, and what the program should say.

use std::collections::BTreeSet;

/// The man page's own sections; clap writes the others.
const MAN: &str = include_str!("../../../deploy/nodefwd.8.in");

/// Every Markdown document, with the folder that its links start from.
pub const DOCUMENTS: [(&str, &str); 5] = [
    ("", include_str!("../../../README.md")),
    ("", include_str!("../../../CHANGELOG.md")),
    ("deploy", include_str!("../../../deploy/README.md")),
    ("benches", include_str!("../../../benches/README.md")),
    ("tests", include_str!("../../README.md")),
];

/// Sections whose shell tests/service.sh runs.
pub const SERVICE: [&str; 5] = [
    "### Install",
    "### Survive a reboot",
    "### Remove",
    "## Metrics",
    "## Shell completion",
];

/// Sections whose shell recipes.rs runs.
pub const RECIPES: [&str; 2] = [
    "### FTP and TFTP",
    "### A second uplink, or a VPN for everything",
];

/// What a document holds beside its sentences.
#[derive(Default)]
pub struct Parts {
    /// Lines of shell, without comments; but not what tests/service.sh or recipes.rs runs.
    pub shell: Vec<String>,
    /// `code` in the text; but not the messages.
    pub code: Vec<String>,
    /// What the troubleshooting is keyed by.
    pub messages: Vec<String>,
}

impl Parts {
    pub fn of_all() -> Self {
        let mut all = Self::of_man();
        for (_, document) in DOCUMENTS {
            let parts = Self::of_markdown(document);
            all.shell.extend(parts.shell);
            all.code.extend(parts.code);
            all.messages.extend(parts.messages);
        }
        all
    }

    pub fn of_markdown(document: &str) -> Self {
        let mut parts = Parts::default();
        let (mut block, mut section, mut text) = (None, "", String::new());
        for line in document.lines() {
            if let Some(language) = line.strip_prefix("```") {
                block = block.is_none().then_some(language);
                continue;
            }
            match (block, line.split_once(" | ")) {
                (Some("sh"), _) if !SERVICE.contains(&section) && !RECIPES.contains(&section) => {
                    let command = line.split(" #").next().unwrap_or(line);
                    parts.shell.push(command.trim().to_owned());
                }
                (Some(_), _) => {}
                (None, Some((message, fix))) if section == "## Troubleshooting" => {
                    parts.messages.extend(code(message));
                    parts.code.extend(code(fix));
                }
                (None, _) if line.starts_with('#') => section = line,
                (None, _) => text = text + line + "\n",
            }
        }
        parts.code.extend(code(&text));
        parts
    }

    /// Messages stand in bold below .TP, code in bold inside a line.
    pub fn of_man() -> Self {
        let mut parts = Parts::default();
        let (before, messages) = MAN.split_once(".SH MESSAGES").expect("the section");
        let plain = |text: &str| text.replace("\\(aq", "'").replace("\\-", "-");
        for line in messages.lines() {
            let message = line.strip_prefix(".B ").map(plain);
            parts
                .messages
                .extend(message.map(|text| text.replace("...", "…")));
        }
        for text in [before, messages] {
            let bold = text.split("\\fB").skip(1);
            let bold = bold.filter_map(|rest| rest.split_once("\\fR"));
            parts.code.extend(bold.map(|(code, _)| plain(code)));
        }
        parts
    }

    /// All that a reader could type: shell, and code of several words that is not `known` as no command.
    pub fn commands(&self, known: &[&str]) -> BTreeSet<&str> {
        let typed = |code: &&str| code.contains(' ') && !known.contains(code);
        let inline = self.code.iter().map(String::as_str).filter(typed);
        self.shell
            .iter()
            .map(String::as_str)
            .chain(inline)
            .collect()
    }
}

/// The code in a Markdown text, each on one line.
fn code(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(one_line).collect()
}

pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The blocks of a language in a Markdown text.
pub fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let start = format!("```{language}\n");
    let blocks = text.split(start.as_str()).skip(1);
    blocks
        .map(|rest| rest.split_once("```").expect("the block's end").0)
        .collect()
}
