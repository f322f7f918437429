//! What was typed: a command, its operands and options, checked against the table. Nothing is
//! interpreted and nothing is done here.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use lexopt::{Arg, Parser};

use super::table::{
    COMMANDS, Cmd, Command, FLAGS, FOREIGN_COMMANDS, FOREIGN_FLAGS, Flag, Opt, WHOLE_COMMANDS,
};
use crate::app::nearest::nearest;

/// A command line, as typed.
#[derive(Debug, PartialEq)]
pub struct Typed {
    /// `None`: nothing but options.
    pub cmd: Option<Cmd>,
    /// What follows the command and is not an option.
    pub operands: Vec<OsString>,
    /// The options in order, each with its value (empty when it takes none).
    pub given: Vec<(Opt, OsString)>,
    /// What follows `--`.
    pub rest: Option<Vec<OsString>>,
}

impl Typed {
    /// Whether `opt` was given.
    pub fn has(&self, opt: Opt) -> bool {
        self.given.iter().any(|given| given.0 == opt)
    }
}

/// Reads `args` (without the program's name). The error is one sentence.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Typed, String> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    // By hand, because lexopt hands out what follows `--` as further operands.
    let rest = args.iter().position(|arg| arg == "--").map(|at| {
        let rest = args.split_off(at);
        rest[1..].to_vec()
    });
    let mut typed = Typed { cmd: None, operands: Vec::new(), given: Vec::new(), rest };
    let mut parser = Parser::from_args(args);
    loop {
        if typed.cmd == Some(Cmd::Scale)
            && let Some(number) = negative(&mut parser)
        {
            typed.operands.push(number);
            continue;
        }
        let mut spelled = OsString::new();
        let flag = match parser.next().map_err(plain)? {
            None => break,
            Some(Arg::Value(value)) => {
                match (typed.cmd, WHOLE_COMMANDS.iter().find(|whole| value == whole.0)) {
                    (None, Some((_, cmd, operand))) => {
                        typed.cmd = Some(*cmd);
                        typed.operands.push(operand.into());
                    }
                    (None, None) => typed.cmd = Some(command(&value)?.cmd),
                    (Some(_), _) => typed.operands.push(value),
                }
                continue;
            }
            Some(Arg::Long(name)) => {
                spelled = name.into();
                Flag::long(name).ok_or_else(|| unknown_long(name))?
            }
            Some(Arg::Short(letter)) => Flag::short(letter).ok_or_else(|| unknown_short(letter))?,
        };
        let value = match flag.value {
            // Where pm2 has no value for it, neither have we.
            Some(_) if flag.opt == Opt::Format && typed.cmd == Some(Cmd::Logs) => {
                parser.optional_value().unwrap_or_default()
            }
            Some(what) => parser.value().map_err(|_| format!("{} needs a value: <{what}>", flag.name()))?,
            None if matches!(flag.opt, Opt::Watch | Opt::Timestamp) => {
                parser.optional_value().unwrap_or_default()
            }
            // Which of its names it was.
            None if flag.opt == Opt::Foreign => spelled,
            None => OsString::new(),
        };
        typed.given.push((flag.opt, value));
    }
    check(&typed)?;
    Ok(typed)
}

/// `scale app -1`: a number, not an option. (pm2 documents it and cannot parse it.)
fn negative(parser: &mut Parser) -> Option<OsString> {
    let is_negative = |arg: &OsStr| match arg.as_bytes() {
        [b'-', digits @ ..] => !digits.is_empty() && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    parser.try_raw_args()?.next_if(is_negative)
}

fn check(typed: &Typed) -> Result<(), String> {
    let Some(cmd) = typed.cmd else { return Ok(()) };
    // Somebody who asks for help gets it, whatever else the line holds.
    if typed.has(Opt::Help) || typed.has(Opt::Version) {
        return Ok(());
    }
    let command = Command::of(cmd);
    if let Some((opt, _)) = typed.given.iter().find(|given| !command.takes(given.0)) {
        let name = command.name();
        return Err(format!("{} has no meaning for {name} (see pmx help {name})", Flag::of(*opt).name()));
    }
    if typed.rest.is_some()
        && !matches!(
            cmd,
            Cmd::Start | Cmd::StartOrReload | Cmd::Restart | Cmd::Reload | Cmd::Runtime | Cmd::Deploy
        )
    {
        return Err(format!("{} takes no arguments for an app after --", command.name()));
    }
    Ok(())
}

/// The command that `typed` names.
pub fn command(typed: &OsStr) -> Result<&'static Command, String> {
    let name = typed.to_string_lossy();
    if let Some(command) = Command::named(&name) {
        return Ok(command);
    }
    if let Some((_, why)) = FOREIGN_COMMANDS.iter().find(|row| row.0.contains(&&*name)) {
        return Err(format!("{name} is of pm2: {why}"));
    }
    let known = COMMANDS.iter().flat_map(|command| command.names.iter().copied());
    Err(match nearest(&name, known) {
        Some(near) => format!("unknown command {name:?}: did you mean {near}?"),
        None => format!("unknown command {name:?} (see pmx help)"),
    })
}

fn unknown_long(name: &str) -> String {
    if let Some((_, why)) = FOREIGN_FLAGS.iter().find(|row| row.0.contains(&name)) {
        return format!("--{name} is of pm2: {why}");
    }
    let known = FLAGS.iter().flat_map(|flag| flag.longs.iter().copied());
    match nearest(name, known) {
        Some(near) => format!("unknown option --{name}: did you mean --{near}?"),
        None => format!("unknown option --{name}"),
    }
}

fn unknown_short(letter: char) -> String {
    format!("unknown option -{letter}")
}

/// lexopt's own errors; only one of them is left to happen.
fn plain(error: lexopt::Error) -> String {
    match error {
        lexopt::Error::UnexpectedValue { option, .. } => format!("{option} takes no value"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Result<Typed, String> {
        parse(line.split(' ').filter(|word| !word.is_empty()).map(OsString::from))
    }

    #[test]
    fn options_stand_anywhere_and_numbers_may_be_negative() {
        for (line, cmd, operands, given) in [
            ("start app.js", Cmd::Start, "app.js", ""),
            ("--name x start app.js -f", Cmd::Start, "app.js", "Name=x Force="),
            ("start app.js --name=x", Cmd::Start, "app.js", "Name=x"),
            ("start app.js -nx", Cmd::Start, "app.js", "Name=x"),
            ("start a b c", Cmd::Start, "a b c", ""),
            ("start -", Cmd::Start, "-", ""),
            ("start app.js -i -1", Cmd::Start, "app.js", "Instances=-1"),
            ("start app.js -i max", Cmd::Start, "app.js", "Instances=max"),
            ("start app.js --node-args --harmony", Cmd::Start, "app.js", "InterpreterArgs=--harmony"),
            ("start app.js --interpreter-args=-a", Cmd::Start, "app.js", "InterpreterArgs=-a"),
            ("scale api -1", Cmd::Scale, "api -1", ""),
            ("scale api +2", Cmd::Scale, "api +2", ""),
            ("scale api 3", Cmd::Scale, "api 3", ""),
            ("scale --no-color api -12", Cmd::Scale, "api -12", "NoColor="),
            ("stopAll", Cmd::Stop, "all", ""),
            ("restartAll -a", Cmd::Restart, "all", "UpdateEnv="),
            ("updatePM2", Cmd::Update, "", ""),
            ("generate x.json", Cmd::Init, "x.json", ""),
            ("start app.js --run-as-user www --run-as-group 33", Cmd::Start, "app.js", "Uid=www Gid=33"),
            ("start app.js --no-vizion --disable-trace", Cmd::Start, "app.js", "OfPm2= OfPm2="),
            ("start app.js --v8 --trace -p x", Cmd::Start, "app.js", "Foreign=v8 Foreign=trace PidFile=x"),
            ("reload api -f", Cmd::Reload, "api", "Force="),
            ("ls --sort cpu:desc -m", Cmd::List, "", "Sort=cpu:desc MiniList="),
            ("ls", Cmd::List, "", ""),
            ("logs --format api --timestamp=YYYY", Cmd::Logs, "api", "Format= Timestamp=YYYY"),
            ("logs api --timestamp --json", Cmd::Logs, "api", "Timestamp= Json="),
            ("l", Cmd::List, "", ""),
            ("ps", Cmd::List, "", ""),
            ("status", Cmd::List, "", ""),
            ("del all", Cmd::Delete, "all", ""),
            ("show 0", Cmd::Describe, "0", ""),
            ("log api --lines 3 --nostream", Cmd::Logs, "api", "Lines=3 NoStream="),
            ("sendSignal SIGUSR2 api", Cmd::SendSignal, "SIGUSR2 api", ""),
            ("daemon --lock-fd 3 --ready-fd 4", Cmd::Daemon, "", "LockFd=3 ReadyFd=4"),
            ("stop api -h", Cmd::Stop, "api", "Help="),
        ] {
            let typed = typed(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            let words: Vec<_> = typed.operands.iter().map(|word| word.to_string_lossy()).collect();
            let options: Vec<_> = typed
                .given
                .iter()
                .map(|(opt, value)| format!("{opt:?}={}", value.to_string_lossy()))
                .collect();
            assert_eq!((typed.cmd, words.join(" ").as_str()), (Some(cmd), operands), "{line}");
            assert_eq!(options.join(" "), given, "{line}");
            assert_eq!(typed.rest, None, "{line}");
        }
    }

    #[test]
    fn what_follows_two_dashes_is_the_apps() {
        let typed = typed("start app.js -- -a 23 -- --watch").unwrap();
        assert_eq!(typed.operands, ["app.js"]);
        assert_eq!(typed.rest, Some(["-a", "23", "--", "--watch"].map(OsString::from).to_vec()));
    }

    #[test]
    fn what_is_wrong_is_said_in_one_sentence() {
        for (line, sentence) in [
            ("strat app.js", "unknown command \"strat\": did you mean start?"),
            ("frobnicate", "unknown command \"frobnicate\" (see pmx help)"),
            ("logrotate", "logrotate is of pm2: pmx rotates logs itself"),
            ("link", "link is of pm2: it is for the service pm2.io, which pmx has nothing to do with"),
            ("module:update", "module:update is of pm2: pmx has no modules"),
            ("start app.js --no-daemon", "--no-daemon is of pm2: pmx runtime runs apps in the foreground"),
            ("start app.js --fresh", "--fresh is of pm2: pmx builds no images"),
            ("resurect", "unknown command \"resurect\": did you mean resurrect?"),
            ("start app.js --nmae x", "unknown option --nmae: did you mean --name?"),
            ("start app.js --frobnicate", "unknown option --frobnicate"),
            ("start app.js -q", "unknown option -q"),
            ("start app.js --no-watch=src", "--no-watch takes no value"),
            ("scale api --env production", "--env has no meaning for scale (see pmx help scale)"),
            ("start app.js --name", "--name needs a value: <name>"),
            ("start app.js --force=yes", "--force takes no value"),
            ("stop api --name x", "--name has no meaning for stop (see pmx help stop)"),
            ("restart api -i 3", "--instances has no meaning for restart (see pmx help restart)"),
            ("stop api -- x", "stop takes no arguments for an app after --"),
        ] {
            match typed(line) {
                Err(error) => assert!(error.starts_with(sentence), "{line}: {error}"),
                Ok(typed) => panic!("{line}: {typed:?}"),
            }
        }
    }

    #[test]
    fn random_words_never_panic() {
        let words =
            ["start", "-", "--", "-i", "-1", "--name", "--name=", "=", "-n=", "-\u{e9}", "scale", "", "--=x"];
        let mut state = 1u64;
        for _ in 0..20_000 {
            let mut line = Vec::new();
            for _ in 0..5 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                line.push(OsString::from(words[(state >> 33) as usize % words.len()]));
            }
            let _ = parse(line);
        }
    }
}
