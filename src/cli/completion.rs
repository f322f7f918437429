//! `completion`: what a shell needs to complete commands, options and the names of processes, written from the
//! table. Names come from `pmx completion names`, which starts no daemon, and no shell expands them.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::Session;
use super::connect::Connection;
use super::screen::Fail;
use super::table::{COMMANDS, Cmd, Command, EVERYWHERE, FLAGS, Flag};
use crate::protocol::{Answer, Verb};

/// What stands where an operand is expected.
#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Nothing,
    Files,
    Processes { files: bool },
    Commands,
    Words(Vec<&'static str>),
}

/// `pmx completion`.
pub fn completion(session: &mut Session<'_, '_>, shell: &str) -> Result<(), Fail> {
    let text = match shell {
        "bash" => bash(),
        "zsh" => zsh(),
        "fish" => fish(),
        "names" => return names(session),
        other => {
            return Err(Fail::Sentence(format!("completion: expected bash, zsh or fish, got {other:?}")));
        }
    };
    session.screen.data(text.as_bytes())
}

/// Names, namespaces and ids, one a line. A name of two lines cannot be completed.
fn names(session: &mut Session<'_, '_>) -> Result<(), Fail> {
    let Some(mut connection) = Connection::existing(&session.home)? else { return Ok(()) };
    let views = match connection.request(Verb::List, &mut |_| {}).map_err(String::from)? {
        Answer::List(views) => views,
        other => return Err(Fail::Sentence(super::act::unexpected(&other))),
    };
    let mut words: BTreeSet<String> = views.iter().map(|view| view.id.to_string()).collect();
    for view in views {
        words.extend([view.name, view.namespace].into_iter().filter(|word| !word.contains('\n')));
    }
    words.insert("all".to_string());
    let words: Vec<String> = words.into_iter().map(|word| word + "\n").collect();
    session.screen.data(words.concat().as_bytes())
}

/// What the table says of a command's operands.
fn operand(command: &Command) -> Operand {
    let text = command.operands;
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let files = has(&["file", "script", "program", "dir"]);
    if command.cmd == Cmd::Help {
        return Operand::Commands;
    }
    if has(&["name", "<id>"]) {
        return Operand::Processes { files };
    }
    if files {
        return Operand::Files;
    }
    let first = text.split(' ').next().unwrap_or_default();
    let words: Vec<&str> = first.trim_matches(['<', '>', '[', ']', '.']).split('|').collect();
    let is_literal = |word: &&str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase());
    match words.len() > 1 && words.iter().all(is_literal) {
        true => Operand::Words(words),
        false => Operand::Nothing,
    }
}

/// `--name`, `-n` and all others that an option has.
fn spellings(flag: &Flag) -> Vec<String> {
    let longs = flag.longs.iter().map(|long| format!("--{long}"));
    longs.chain(flag.shorts.iter().map(|letter| format!("-{letter}"))).collect()
}

fn flags(command: &Command) -> impl Iterator<Item = &'static Flag> + '_ {
    let shown = |flag: &&Flag| !flag.about.contains("(internal)");
    command.own_options().chain(EVERYWHERE.iter().copied()).map(Flag::of).filter(shown)
}

fn all_names() -> Vec<&'static str> {
    COMMANDS.iter().flat_map(|command| command.names.iter().copied()).collect()
}

fn bash() -> String {
    let valued: Vec<String> = FLAGS.iter().filter(|flag| flag.value.is_some()).flat_map(spellings).collect();
    let everywhere: Vec<String> = EVERYWHERE.iter().flat_map(|opt| spellings(Flag::of(*opt))).collect();
    let mut cases = String::new();
    for command in COMMANDS {
        let options: Vec<String> = flags(command).flat_map(spellings).collect();
        let what = match operand(command) {
            Operand::Nothing => String::new(),
            Operand::Files => "files=1".to_string(),
            Operand::Processes { files: false } => "names=1".to_string(),
            Operand::Processes { files: true } => "names=1 files=1".to_string(),
            Operand::Commands => "words=$commands".to_string(),
            Operand::Words(words) => format!("words='{}'", words.join(" ")),
        };
        let _ = writeln!(
            cases,
            "            {}) options='{}' {what} ;;",
            command.names.join("|"),
            options.join(" ")
        );
    }
    format!(
        r#"# pmx in bash: source <(pmx completion bash)
_pmx() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} command= word at
    local options='{}' words= names= files=
    local commands='{}'
    COMPREPLY=()
    for ((at = 1; at < COMP_CWORD; at++)); do
        case ${{COMP_WORDS[at]}} in
            --) compopt -o default 2>/dev/null; return ;;
            {valued}) ((at++)) ;;
            -*) ;;
            *) [ -n "$command" ] || command=${{COMP_WORDS[at]}} ;;
        esac
    done
    case $prev in
        {valued}) compopt -o default 2>/dev/null; return ;;
    esac
    if [ -z "$command" ]; then
        words=$commands
    else
        case $command in
{cases}        esac
    fi
    case $cur in
        -*) words=$options names= files= ;;
    esac
    for word in $words; do
        [[ $word == "$cur"* ]] && COMPREPLY+=("$word")
    done
    if [ -n "$names" ]; then
        # Taken as they are: whatever a process is called, nothing of it is expanded.
        while IFS= read -r word; do
            [[ $word == "$cur"* ]] && COMPREPLY+=("$(printf %q "$word")")
        done < <("${{COMP_WORDS[0]}}" completion names 2>/dev/null)
    fi
    if [ -n "$files" ]; then
        compopt -o filenames 2>/dev/null
        while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -f -- "$cur")
    fi
}}
complete -F _pmx pmx
"#,
        everywhere.join(" "),
        all_names().join(" "),
        valued = valued.join("|"),
    )
}

/// For zsh and fish, between single quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn zsh() -> String {
    let plain =
        |text: &str| text.replace('\\', "\\\\").replace(':', "\\:").replace('[', "\\[").replace(']', "\\]");
    let mut described = String::new();
    let mut cases = String::new();
    for command in COMMANDS {
        for name in command.names {
            let _ = writeln!(described, "        {}", quoted(&format!("{name}:{}", command.about)));
        }
        let _ = writeln!(cases, "        {})\n            _arguments -A '-*' \\", command.names.join("|"));
        for flag in flags(command) {
            for spelling in spellings(flag) {
                let about = plain(flag.about);
                let spec = match flag.value {
                    Some(value) if spelling.starts_with("--") => {
                        format!("*{spelling}=[{about}]:{}:_files", plain(value))
                    }
                    Some(value) => format!("*{spelling}+[{about}]:{}:_files", plain(value)),
                    None => format!("*{spelling}[{about}]"),
                };
                let _ = writeln!(cases, "                {} \\", quoted(&spec));
            }
        }
        let operands = match operand(command) {
            Operand::Nothing => "':: :'".to_string(),
            Operand::Files => "'*:file:_files'".to_string(),
            Operand::Processes { files: false } => "'*:process:_pmx_names'".to_string(),
            Operand::Processes { files: true } => "'*:process:{ _pmx_names; _files }'".to_string(),
            Operand::Commands => "'1:command:{ _describe command commands }'".to_string(),
            Operand::Words(words) => quoted(&format!("1:word:({})", words.join(" "))),
        };
        let _ = writeln!(cases, "                {operands} ;;");
    }
    format!(
        r#"#compdef pmx
# pmx in zsh: source <(pmx completion zsh), or this text as _pmx in a folder of $fpath
_pmx_names() {{
    local -a names
    names=("${{(@f)$(_call_program names pmx completion names 2>/dev/null)}}")
    compadd -a names
}}

_pmx() {{
    local -a commands
    commands=(
{described}    )
    if (( CURRENT == 2 )); then
        _describe command commands
        return
    fi
    local command=$words[2]
    shift words
    (( CURRENT-- ))
    case $command in
{cases}    esac
}}
(( $+functions[compdef] )) && compdef _pmx pmx
"#
    )
}

fn fish() -> String {
    let mut text = String::from(
        "# pmx in fish: pmx completion fish | source, or this text as ~/.config/fish/completions/pmx.fish\n\
         complete -c pmx -f\n",
    );
    for command in COMMANDS {
        for name in command.names {
            let about = quoted_fish(command.about);
            let _ = writeln!(text, "complete -c pmx -n __fish_use_subcommand -a {name} -d {about}");
        }
        let seen = format!("'__fish_seen_subcommand_from {}'", command.names.join(" "));
        for flag in flags(command) {
            let longs = flag.longs.iter().map(|long| format!(" -l {long}"));
            let shorts = flag.shorts.iter().map(|letter| format!(" -s {letter}"));
            let names: String = longs.chain(shorts).collect();
            let value = if flag.value.is_some() { " -r -F" } else { "" };
            let _ = writeln!(text, "complete -c pmx -n {seen}{names}{value} -d {}", quoted_fish(flag.about));
        }
        let operands = match operand(command) {
            Operand::Nothing => continue,
            Operand::Files => "-F".to_string(),
            Operand::Processes { files } => {
                format!("{}-a '(pmx completion names 2>/dev/null)'", if files { "-F " } else { "" })
            }
            Operand::Commands => format!("-a '{}'", all_names().join(" ")),
            Operand::Words(words) => format!("-a '{}'", words.join(" ")),
        };
        let _ = writeln!(text, "complete -c pmx -n {seen} {operands}");
    }
    text
}

fn quoted_fish(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_what_an_operand_is() {
        let of = |name| operand(Command::named(name).unwrap());
        assert_eq!(of("stop"), Operand::Processes { files: true });
        assert_eq!(of("pid"), Operand::Processes { files: false });
        assert_eq!(of("startup"), Operand::Words(vec!["systemd", "user", "openrc", "sysv"]));
        assert_eq!(of("update"), Operand::Files);
        assert_eq!(of("help"), Operand::Commands);
        assert_eq!(of("list"), Operand::Nothing);
    }
}
