//! `man`: the manual page, written from the table.

use std::fmt::Write;

use super::Session;
use super::screen::Fail;
use super::table::{COMMANDS, Command, EVERYWHERE, Flag, Opt};

/// `pmx man`, for a file `pmx.1`.
pub fn man(session: &mut Session<'_, '_>) -> Result<(), Fail> {
    session.screen.data(page().as_bytes())
}

fn page() -> String {
    let mut page = format!(".TH PMX 1 \"\" \"pmx {}\" \"User Commands\"\n", env!("CARGO_PKG_VERSION"));
    page.push_str(
        ".SH NAME\npmx \\- keeps programs running\n.SH SYNOPSIS\n.B pmx\n.I command\n[options] [\\-\\- args]\n\
         .SH DESCRIPTION\nA process manager for Linux: it starts programs, keeps them alive, shares ports over a \
         cluster of them, and replaces running code without losing a request. A daemon, which commands start by \
         themselves, does the work.\n.PP\nA command exits with 0 if it did what it says and with 1 if not, with one \
         sentence on stderr.\n.SH COMMANDS\n",
    );
    for command in COMMANDS {
        describe(&mut page, command);
    }
    page.push_str(".SH OPTIONS OF EVERY COMMAND\n");
    options(&mut page, EVERYWHERE.iter().copied());
    page.push_str(
        ".SH ENVIRONMENT\n.TP\n.B PMX_HOME\nwhere the daemon lives (default: ~/.pmx)\n.TP\n.B NO_COLOR\nno \
         colours\n.TP\n.B PMX_COMPAT\npm2: be as pm2, as when called by that name\n.SH FILES\n.TP\n\
         .I $PMX_HOME/logs\nwhat apps write\n.TP\n.I $PMX_HOME/pmx.log\nthe daemon's own log\n.TP\n\
         .I $PMX_HOME/dump.pm2\nthe saved list\n",
    );
    page
}

fn describe(page: &mut String, command: &Command) {
    let operands = match command.operands {
        "" => String::new(),
        operands => format!(" {}", plain(operands)),
    };
    let _ = writeln!(page, ".SS \"{}{}\"", plain(command.name()), operands.replace('"', "\\(dq"));
    let _ = writeln!(page, "{}.", sentence(&plain(command.about)));
    if command.names.len() > 1 {
        let others: Vec<String> = command.names[1..].iter().map(|name| plain(name)).collect();
        let _ = writeln!(page, "Also: {}.", others.join(", "));
    }
    options(page, command.own_options());
}

fn options(page: &mut String, opts: impl Iterator<Item = Opt>) {
    for flag in opts.map(Flag::of).filter(|flag| !flag.about.contains("(internal)")) {
        let shorts = flag.shorts.iter().map(|letter| format!("\\fB\\-{letter}\\fR"));
        let longs = flag.longs.iter().map(|long| format!("\\fB\\-\\-{}\\fR", plain(long)));
        let names: Vec<String> = shorts.chain(longs).collect();
        let value = flag.value.map_or(String::new(), |value| format!(" \\fI{}\\fR", plain(value)));
        let _ = writeln!(page, ".TP\n{}{value}\n{}", names.join(", "), plain(flag.about));
    }
}

/// Text without a meaning for roff.
fn plain(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}
