//! Help, written from the table.

use std::fmt::Write;

use super::table::{COMMANDS, Command, EVERYWHERE, Flag, Opt};

/// The page of `pmx help`.
pub fn overview() -> String {
    let mut page =
        String::from("pmx keeps programs running.\n\nUsage: pmx <command> [options]\n\nCommands:\n");
    for command in COMMANDS {
        let _ = writeln!(page, "  {:<11} {}", command.name(), command.about);
    }
    page.push_str("\nOptions of every command:\n");
    options(&mut page, EVERYWHERE.iter().copied());
    page.push_str("\npmx help <command> explains one command.\n");
    page
}

/// The page of `pmx help <command>`.
pub fn page(command: &Command) -> String {
    let mut page = format!("{}\n\nUsage: pmx {}", sentence(command.about), command.name());
    if !command.operands.is_empty() {
        let _ = write!(page, " {}", command.operands);
    }
    page.push('\n');
    if command.names.len() > 1 {
        let _ = writeln!(page, "Also:  {}", command.names[1..].join(", "));
    }
    page.push_str("\nOptions:\n");
    options(&mut page, command.own_options().chain(EVERYWHERE.iter().copied()));
    page
}

fn options(page: &mut String, opts: impl Iterator<Item = Opt>) {
    for flag in opts.map(Flag::of) {
        let mut spelling = String::new();
        for letter in flag.shorts {
            let _ = write!(spelling, "-{letter}, ");
        }
        let longs: Vec<_> = flag.longs.iter().map(|long| format!("--{long}")).collect();
        spelling.push_str(&longs.join(", "));
        if let Some(value) = flag.value {
            let _ = write!(spelling, " <{value}>");
        }
        /// Where the explanations start; longer spellings get a line of their own.
        const COLUMN: usize = 28;
        if spelling.len() > COLUMN {
            let _ = writeln!(page, "  {spelling}\n  {:COLUMN$}  {}", "", flag.about);
        } else {
            let _ = writeln!(page, "  {spelling:COLUMN$}  {}", flag.about);
        }
    }
}

/// With a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{first}{}.", chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::super::table::{Cmd, FLAGS};
    use super::*;

    #[test]
    fn the_page_of_a_command_is_what_it_was() {
        let expected = "\
Print the last log lines, or those that are asked for, and follow.

Usage: pmx logs [all|id|name|namespace|/regex/]...
Also:  log

Options:
  --since <time>                from then on: 90s, 10m, 1h, 2d ago, or ISO 8601
  --until <time>                lines up to then; nothing is followed
  --grep <pattern>              lines that match a regular expression (Rust's regex-lite)
  --fixed                       --grep has text as it is
  --ignore-case                 --grep does not mind the case of ASCII letters
  --level <level>               this or graver: trace, debug, info, warn, error, fatal
  --lines <n>                   how many lines to begin with (15)
  --nostream                    do not follow
  --err                         stderr only
  --out                         stdout only
  --raw                         the lines as they are: no prefix, nothing escaped
  --json                        print the answer as JSON
  --format <how>                raw, or json: one object a line (logs: none, name=value)
  --timestamp                   before each line its time: YYYY-MM-DD-HH:mm:ss, or =FORMAT
  --highlight <text>            make it stand out
  -s, --silent                  print nothing but errors
  --no-color                    no colours (also NO_COLOR=1)
  -h, --help                    explain the command
  -v, -V, --version             print the version
";
        assert_eq!(page(Command::of(Cmd::Logs)), expected);
    }

    #[test]
    fn every_command_and_option_is_explained_and_fits_the_terminal() {
        let overview = overview();
        let pages: String = COMMANDS.iter().map(page).collect();
        for command in COMMANDS {
            assert!(overview.contains(&format!("\n  {} ", command.name())), "{}", command.name());
        }
        for flag in FLAGS {
            assert!(pages.contains(&flag.name()), "{}", flag.name());
        }
        for line in overview.lines().chain(pages.lines()) {
            assert!(line.chars().count() <= 90, "too long: {line}");
        }
    }
}
