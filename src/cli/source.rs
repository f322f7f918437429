//! Declaration files: which they are, and what they say. What only JavaScript understands is evaluated by
//! `node`, here in the client and never in the daemon, as the owner of the file.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::caller::{Caller, absolute};
use crate::app::Text;
use crate::app::declaration::Document;
use crate::sys::poll::{self, Until};
use crate::sys::users;

/// The longest declaration that is read.
const LIMIT: u64 = 16 << 20;
/// How long an evaluation may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest text on stdin that is evaluated: it travels as an argument.
const ARGUMENT_LIMIT: usize = 100_000;
/// What `start` without an operand looks for, the first one first.
const USUAL: [&str; 11] = [
    "ecosystem.config.js",
    "ecosystem.config.cjs",
    "ecosystem.config.mjs",
    "ecosystem.json",
    "ecosystem.json5",
    "ecosystem.yaml",
    "ecosystem.yml",
    "processes.json",
    "process.json",
    "pm2.config.js",
    "pm2.json",
];
/// Ends of the names of declarations that are programs.
const PROGRAMS: [&str; 3] = [".config.js", ".config.cjs", ".config.mjs"];
/// Of root's environment, what the program of somebody else may see. What `--env` chooses is chosen afterwards.
const SHARED: [&str; 4] = ["PATH", "LANG", "TZ", "NODE_ENV"];
/// What the answer follows; before it stands whatever else the program printed.
const MARK: &str = "\0pmx\0";
/// Prints the value of the file or text that it is given. Its own words go to stderr.
const EVALUATE: &str = r#"
console.log = console.info = console.debug = console.error;
const [kind, name, text] = process.argv.slice(1);
const tell = (answer) => require('fs').writeSync(1, '\0pmx\0' + JSON.stringify(answer));
const expression = (source) => require('vm').runInThisContext('(' + source + '\n)', { filename: name });
const evaluate = async () => {
  if (kind === 'text') return expression(text);
  if (kind === 'json') return expression(require('fs').readFileSync(name, 'utf8').replace(/^\uFEFF/, ''));
  const found = await import(require('url').pathToFileURL(name));
  let value = 'default' in found ? found.default : found;
  if (value && value.__esModule && value.default) value = value.default;
  return typeof value === 'function' ? value() : value;
};
evaluate().then((value) => tell({ value }), (error) => {
  const stack = String(error && error.stack || error);
  const at = stack.split('\n').find((line) => line.includes(name));
  const line = at && /:(\d+)(?::\d+)?\)?$/.exec(at.trim());
  tell({ error: error instanceof Error ? `${error.name}: ${error.message}` : stack, line: line && Number(line[1]) });
}).then(() => process.exit(0));
"#;

/// Whether an operand is a declaration file, or stdin with one.
pub fn is_declaration(operand: &str) -> bool {
    operand == "-"
        || operand.ends_with(".json")
        || operand.ends_with(".json5")
        || is_yaml(operand)
        || is_program(operand)
}

fn is_yaml(operand: &str) -> bool {
    operand.ends_with(".yaml") || operand.ends_with(".yml")
}

fn is_program(operand: &str) -> bool {
    PROGRAMS.iter().any(|end| operand.ends_with(end))
}

/// The declaration file that `start` means when nothing is named.
pub fn usual(caller: &Caller) -> Option<String> {
    USUAL.iter().find(|name| caller.cwd.join(name).is_file()).map(|name| name.to_string())
}

/// The declaration in `file`, or on stdin. The error begins with the file's name.
pub fn read(caller: &Caller, file: &str) -> Result<Document, String> {
    let path = absolute(&caller.cwd, Path::new(file));
    if is_program(file) {
        if let Err(error) = std::fs::metadata(&path) {
            return Err(fault(file, &error));
        }
        return evaluate(caller, file, &[Path::new("file"), &path]);
    }
    let mut text = Vec::new();
    let read = if file == "-" {
        std::io::stdin().take(LIMIT + 1).read_to_end(&mut text)
    } else {
        std::fs::File::open(&path).and_then(|opened| opened.take(LIMIT + 1).read_to_end(&mut text))
    };
    read.map_err(|error| fault(file, &error))?;
    if text.len() as u64 > LIMIT {
        return Err(format!("{file}: longer than {} MiB", LIMIT >> 20));
    }
    let text = String::from_utf8(text).map_err(|_| format!("{file}: not UTF-8"))?;
    if is_yaml(file) {
        return yaml(file, &text);
    }
    let fault = match Document::json(&text) {
        Ok(document) => return Ok(document),
        Err(fault) => format!("{file}:{fault}"),
    };
    // pm2 evaluates such a file: `process.env.X || 'y'` is what people write in it.
    if text.trim().is_empty() || program(caller, "node").is_none() {
        return Err(fault);
    }
    if file != "-" {
        return evaluate(caller, file, &[Path::new("json"), &path]);
    }
    if text.len() > ARGUMENT_LIMIT || text.contains('\0') {
        return Err(fault);
    }
    evaluate(caller, file, &[Path::new("text"), Path::new("stdin"), Path::new(&text)])
}

#[cfg(feature = "yaml")]
fn yaml(file: &str, text: &str) -> Result<Document, String> {
    Document::yaml(text).map_err(|fault| format!("{file}:{fault}"))
}

/// As it is without the crate that reads YAML.
#[cfg(not(feature = "yaml"))]
fn yaml(file: &str, _: &str) -> Result<Document, String> {
    Err(format!("{file}: this pmx was built without the feature yaml; it reads .json, .json5 and .config.js"))
}

fn fault(file: &str, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => format!("{file}: no such file"),
        _ => format!("{file}: {error}"),
    }
}

/// Where a program is.
pub fn program(caller: &Caller, name: &str) -> Option<PathBuf> {
    let path = caller.var("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Has node evaluate what `words` describe.
fn evaluate(caller: &Caller, file: &str, words: &[&Path]) -> Result<Document, String> {
    let node = program(caller, "node")
        .ok_or_else(|| format!("{file}: it is JavaScript, and node is not in PATH"))?;
    let mut command = Command::new(node);
    command.arg("-e").arg(EVALUATE).arg("--").args(words).env_clear();
    match if file == "-" { None } else { stranger(file, words[1])? } {
        None => {
            // Options for apps, such as an inspector's port, are not for this.
            let passed = |name: &&Text| name.0 != "NODE_OPTIONS" && name.0 != "NODE_CHANNEL_FD";
            let env = caller.env.0.iter().filter(|(name, _)| passed(name));
            command.envs(env.map(|(name, value)| (&name.0, &value.0)));
        }
        Some(owner) => as_owner(&mut command, caller, owner),
    }
    command.current_dir(&caller.cwd).stdin(Stdio::null()).stdout(Stdio::piped());
    let failed = |error: std::io::Error| format!("{file}: run node: {error}");
    let mut child = command.spawn().map_err(failed)?;
    let text = child.stdout.take().map_or(Ok(Vec::new()), |out| collect(out, Instant::now() + PATIENCE));
    if text.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(failed)?;
    let text = String::from_utf8_lossy(&text.map_err(|what| format!("{file}: {what}"))?).into_owned();
    let answer = text.rsplit_once(MARK).and_then(|(_, json)| serde_json::from_str::<Value>(json).ok());
    let Some(mut answer) = answer else {
        return Err(format!("{file}: node ended without a value ({status})"));
    };
    match (answer.get("error").and_then(Value::as_str), answer.get("line").and_then(Value::as_u64)) {
        (None, _) => Ok(Document::computed(answer.get_mut("value").map(Value::take).unwrap_or_default())),
        (Some(error), Some(line)) => Err(format!("{file}:{line}: {error}")),
        (Some(error), None) => Err(format!("{file}: {error}")),
    }
}

/// All that comes from a pipe, until a deadline.
fn collect(mut from: impl Read + AsFd, deadline: Instant) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let mut part = [0; 1 << 16];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("its evaluation took longer than {} s", PATIENCE.as_secs()));
        }
        let ready = poll::wait(&[(from.as_fd(), Until::Readable)], Some(left));
        if !ready.map_err(|error| format!("wait for node: {error}"))?[0] {
            continue;
        }
        match from.read(&mut part).map_err(|error| format!("read from node: {error}"))? {
            0 => return Ok(text),
            read => text.extend_from_slice(&part[..read]),
        }
        if text.len() as u64 > LIMIT {
            return Err(format!("its value is longer than {} MiB", LIMIT >> 20));
        }
    }
}

/// Who else than root a file belongs to that root evaluates.
struct Owner {
    uid: u32,
    gid: u32,
    entry: Option<users::Entry>,
}

/// The owner of a file of somebody else, which is evaluated as that user. One that anybody could have written
/// is not evaluated by root.
fn stranger(file: &str, path: &Path) -> Result<Option<Owner>, String> {
    if users::effective_uid() != 0 {
        return Ok(None);
    }
    let real = std::fs::canonicalize(path).map_err(|error| fault(file, &error))?;
    let mut owner = None;
    for place in real.ancestors() {
        let found = std::fs::metadata(place).map_err(|error| format!("{}: {error}", place.display()))?;
        let sticky = found.is_dir() && found.mode() & 0o1000 != 0;
        if found.mode() & 0o002 != 0 && !sticky {
            return Err(format!(
                "{file}: not evaluated as root, because anybody may write to {}",
                place.display()
            ));
        }
        owner.get_or_insert((found.uid(), found.gid()));
    }
    let Some((uid, gid)) = owner.filter(|(uid, _)| *uid != 0) else { return Ok(None) };
    let entry = users::user(&uid.to_string()).map_err(|error| format!("{file}: look up {uid}: {error}"))?;
    Ok(Some(Owner { uid, gid: entry.as_ref().map_or(gid, |entry| entry.gid), entry }))
}

/// Root's environment holds what is nobody else's business, and root's terminal takes what is typed into it.
fn as_owner(command: &mut Command, caller: &Caller, owner: Owner) {
    for name in SHARED {
        if let Some(value) = caller.env.get(name) {
            command.env(name, value);
        }
    }
    if let Some(entry) = &owner.entry {
        command.env("HOME", &entry.home).env("USER", &entry.name).env("LOGNAME", &entry.name);
    }
    // Without root's supplementary groups: the standard library drops them when root gives a uid.
    command.uid(owner.uid).gid(owner.gid);
    users::lead_session(command);
}
