//! From what was declared to an `App` that can be run: the script, its interpreter, the working
//! directory and the user are looked up here, with the eyes of the person who typed the command.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::caller::{Caller, absolute};
use super::serve;
use crate::app::declaration::{Declared, site};
use crate::app::interpreter::{self, ByExtension, Shebang};
use crate::app::{App, Combined, Command, Env, Mode, Runtime, Text, User, Watched, words};
use crate::app::{dotenv, variables};
use crate::sys::users;

/// An app, and what its author should know about it.
#[derive(Debug, PartialEq)]
pub struct Resolved {
    pub app: App,
    pub notes: Vec<String>,
}

/// Resolves one declared app. The error is one sentence without the app's name.
pub fn resolve(declared: &Declared, caller: &Caller) -> Result<Resolved, String> {
    let cwd = match &declared.changes.cwd {
        Some(cwd) => absolute(&caller.cwd, cwd.path()),
        None => caller.cwd.clone(),
    };
    // As in pm2, `serve` is no program that may be somewhere; but a file here is what was meant.
    if declared.script.bytes() == site::SCRIPT.as_bytes() && !cwd.join(site::SCRIPT).is_file() {
        return resolve_in(cwd, &serve::served(declared)?, caller);
    }
    resolve_in(cwd, declared, caller)
}

fn resolve_in(cwd: PathBuf, declared: &Declared, caller: &Caller) -> Result<Resolved, String> {
    let changes = &declared.changes;
    match fs::metadata(&cwd) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(format!("working directory {}: not a directory", cwd.display())),
        Err(_) => return Err(format!("working directory {}: no such directory", cwd.display())),
    }
    let env = environment(declared, &cwd, caller)?;
    let search = Search { cwd: &cwd, path: env.get("PATH").or(caller.env.get("PATH")) };
    let mut notes = Vec::new();
    let found = search.command(declared, &mut notes)?;

    let mut app = App { umask: users::umask(), ..App::default() };
    changes.apply(&mut app);
    app.command = found.command;
    app.cwd = Text::from(&cwd);
    app.env = env;
    if found.is_python
        && app.env.get("PYTHONUNBUFFERED").is_none()
        && caller.env.get("PYTHONUNBUFFERED").is_none()
    {
        // Else Python holds its lines back for as long as its output is no terminal.
        app.env.set("PYTHONUNBUFFERED", "1");
    }
    if changes.name.is_none() {
        app.name = found.name;
    }
    for name in [&app.name, &app.namespace] {
        if let Some(fault) = interpreter::name_fault(name) {
            return Err(fault.to_string());
        }
    }
    let takes_channel = matches!(app.command.runtime, Runtime::Node | Runtime::Launcher);
    if changes.mode.is_none() && changes.instances.is_some() && takes_channel {
        app.mode = Mode::Cluster;
    }
    // Unlike pm2 one process has its id in its file names too: it may be scaled later.
    app.merge_logs = changes.merge_logs.unwrap_or(false);
    if caller.is_pm2() && changes.instances.is_none() {
        // As pm2: a fork, and no id in the names of its log files, unless somebody asks for instances.
        app.mode = changes.mode.unwrap_or(Mode::Fork);
        app.merge_logs = changes.merge_logs.unwrap_or(app.mode == Mode::Fork);
    }
    app.out_file = changes.out_file.as_ref().map(|file| log_file(&cwd, file));
    app.error_file = changes.error_file.as_ref().map(|file| log_file(&cwd, file));
    app.pid_file = changes.pid_file.as_ref().map(|file| Text::from(&absolute(&cwd, file.path())));
    combined(&cwd, &mut app.logs.combined);
    watched(&cwd, &mut app.triggers.watch.what)?;
    app.critical = declared.critical.unwrap_or(false);
    app.user = user(declared.user.as_deref(), declared.group.as_deref())?;
    Ok(Resolved { app, notes })
}

/// The variables that were declared: those of files, and over them all others.
fn environment(declared: &Declared, cwd: &Path, caller: &Caller) -> Result<Env, String> {
    let mut env = Env::default();
    for file in &declared.env_files {
        let path = absolute(cwd, file.path());
        let text =
            fs::read(&path).map_err(|error| format!("env_file {file}: {}", crate::sys::reason(&error)))?;
        let text = String::from_utf8(text).map_err(|_| format!("env_file {file}: not UTF-8"))?;
        let found = dotenv::read(&text).map_err(|(line, what)| format!("env_file {file}:{line}: {what}"))?;
        env.0.extend(found.0);
    }
    env.0.extend(declared.env.0.clone());
    if let Some(name) = &declared.changes.increment_var {
        match env.get(name).or(caller.env.get(name)) {
            None => return Err(format!("increment_var {name}: it is not set (under env, for example)")),
            Some(value) if variables::number(value).is_none() => {
                return Err(format!("increment_var {name}: its value {:?} is no number", value.lossy()));
            }
            Some(_) => {}
        }
    }
    Ok(env)
}

/// A log file's path against the app's directory; `NULL` is pm2's word for nowhere.
pub fn log_file(cwd: &Path, file: &Text) -> Text {
    if file.bytes() == b"NULL" { Text::from("/dev/null") } else { Text::from(&absolute(cwd, file.path())) }
}

/// The same of the file for both streams; nowhere is none.
pub fn combined(cwd: &Path, combined: &mut Combined) {
    if let Combined::File(file) = combined {
        let path = log_file(cwd, file);
        *combined = if path.bytes() == b"/dev/null" { Combined::None } else { Combined::File(path) };
    }
}

/// The paths that are watched, against the app's directory. What is not there yet cannot be watched.
pub fn watched(cwd: &Path, what: &mut Watched) -> Result<(), String> {
    let Watched::Paths(paths) = what else { return Ok(()) };
    for path in paths {
        let absolute = absolute(cwd, path.path());
        if !absolute.exists() {
            return Err(format!("watch {path}: no such file or directory"));
        }
        *path = Text::from(&absolute);
    }
    Ok(())
}

/// Who an app is to run as, when anything was said about it.
pub fn user(user: Option<&str>, group: Option<&str>) -> Result<Option<User>, String> {
    let us = users::effective_uid();
    let Some(name) = user.map(String::from).or_else(|| group.map(|_| us.to_string())) else {
        return Ok(None);
    };
    if us != 0 {
        return Err("run as another user or group: only root can".to_string());
    }
    let failed = |error| format!("look up {name}: {}", crate::sys::reason(&error));
    let entry = users::user(&name).map_err(failed)?.ok_or_else(|| format!("unknown user {name}"))?;
    let gid = match group {
        None => entry.gid,
        Some(group) => {
            users::group(group).map_err(failed)?.ok_or_else(|| format!("unknown group {group}"))?
        }
    };
    let groups = users::groups(&entry.name, gid).map_err(failed)?;
    Ok(Some(User { name, uid: entry.uid, gid, groups, home: Some(Text::from(&entry.home)) }))
}

/// Why a file is not run that has no interpreter either.
pub const NOT_EXECUTABLE: &str = "not executable: chmod +x it, or give --interpreter";

struct Found {
    command: Command,
    name: String,
    is_python: bool,
}

/// Where programs are looked for.
struct Search<'a> {
    cwd: &'a Path,
    path: Option<&'a Text>,
}

impl Search<'_> {
    fn command(&self, declared: &Declared, notes: &mut Vec<String>) -> Result<Found, String> {
        let script = declared.script.lossy();
        let file = absolute(self.cwd, declared.script.path());
        let metadata = fs::metadata(&file);
        if metadata.as_ref().is_ok_and(fs::Metadata::is_file) {
            return self.file(&file, declared, notes);
        }
        if script.contains(char::is_whitespace) && declared.interpreter.is_none() {
            return self.line(declared);
        }
        if !script.contains('/')
            && let Some(program) = self.in_path(&script)
        {
            return self.file(&program, declared, notes);
        }
        Err(match metadata {
            Ok(_) => "not a file".to_string(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "no such file".to_string(),
            Err(error) => error.to_string(),
        })
    }

    /// A line for a shell.
    fn line(&self, declared: &Declared) -> Result<Found, String> {
        let mut line = declared.script.lossy().into_owned();
        for arg in declared.changes.args.iter().flatten() {
            line.push(' ');
            line.push_str(&words::quote(&arg.lossy()));
        }
        let shell = self.first_of(&["bash", "sh"])?;
        let mut interpreter_args = declared.changes.interpreter_args.clone().unwrap_or_default();
        interpreter_args.push(Text::from("-c"));
        Ok(Found {
            name: interpreter::line_name(&line),
            command: Command {
                script: Text::from(line),
                interpreter: Some(Text::from(&shell)),
                interpreter_args,
                args: Vec::new(),
                runtime: Runtime::Launcher,
            },
            is_python: false,
        })
    }

    fn file(&self, file: &Path, declared: &Declared, notes: &mut Vec<String>) -> Result<Found, String> {
        let head = head(file)?;
        let shebang = interpreter::shebang(&head);
        let executable = is_executable(file);
        let extension = file.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
        let known = extension.as_deref().and_then(interpreter::by_extension);
        let direct = || {
            if executable { Ok(None) } else { Err(NOT_EXECUTABLE.to_string()) }
        };
        let mut before: Vec<String> = Vec::new();
        let interpreter = match (declared.interpreter.as_deref(), known, &shebang) {
            (Some("none"), _, _) => direct()?,
            (Some(program), _, _) => Some(self.program(program)?),
            (None, Some(ByExtension::First(programs)), _) => Some(self.first_of(programs)?),
            (None, Some(ByExtension::TypeScript { node }), _) => Some(self.typescript(file, node, notes)?),
            (None, None, Some(_)) if executable => None,
            (None, None, Some(Shebang { program, args })) => {
                before.clone_from(args);
                Some(self.program(program)?)
            }
            (None, None, None) if head.contains(&0) => direct()?,
            // pm2 takes what it does not know for JavaScript; with an extension it cannot be.
            (None, None, None) => match &extension {
                None => Some(self.first_of(&["node"])?),
                Some(extension) => {
                    return Err(format!("no interpreter is known for .{extension}: give --interpreter"));
                }
            },
        };
        let program = interpreter.clone().or_else(|| shebang.map(|shebang| shebang.program));
        let script = file.to_string_lossy();
        let given = declared.changes.interpreter_args.clone().unwrap_or_default();
        Ok(Found {
            name: interpreter::default_name(&script),
            is_python: interpreter::is_python(program.as_deref().unwrap_or(&script)),
            command: Command {
                runtime: interpreter::runtime(program.as_deref(), &script),
                script: Text::from(file),
                interpreter: interpreter.map(Text::from),
                interpreter_args: before.into_iter().map(Text::from).chain(given).collect(),
                args: declared.changes.args.clone().unwrap_or_default(),
            },
        })
    }

    /// A named interpreter: a name stays one, a path is made absolute.
    fn program(&self, program: &str) -> Result<String, String> {
        if !program.contains('/') {
            return self.first_of(&[program]);
        }
        let path = absolute(self.cwd, Path::new(program));
        if !path.is_file() {
            return Err(format!("interpreter {program}: no such file"));
        }
        if !is_executable(&path) {
            return Err(format!("interpreter {program}: not executable"));
        }
        Ok(path.to_string_lossy().into_owned())
    }

    /// The first of these names that is in PATH.
    fn first_of(&self, programs: &[&str]) -> Result<String, String> {
        let found = programs.iter().find(|program| self.in_path(program).is_some());
        found
            .map(|program| program.to_string())
            .ok_or_else(|| format!("interpreter {}: not found in PATH", programs.join(" or ")))
    }

    /// The project's own runner first, then the machine's.
    fn typescript(&self, file: &Path, node: bool, notes: &mut Vec<String>) -> Result<String, String> {
        for name in ["tsx", "bun"] {
            let local = self.cwd.join("node_modules/.bin").join(name);
            if is_executable(&local) {
                return Ok(local.to_string_lossy().into_owned());
            }
        }
        if let Ok(program) = self.first_of(&["bun", "tsx"]) {
            return Ok(program);
        }
        let Some(path) = self.in_path("node").filter(|_| node) else {
            return Err("it needs bun or tsx, and neither is in PATH or node_modules/.bin".to_string());
        };
        let output = std::process::Command::new(path).arg("--version").output();
        let version = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string());
        let version = version.unwrap_or_default();
        if !interpreter::node_strips_types(&version) {
            return Err(format!("it needs bun, tsx, or node 22.18 or newer (this node is {version})"));
        }
        notes.push(format!("{}: run by node {version}, which strips the types", file.display()));
        Ok("node".to_string())
    }

    fn in_path(&self, name: &str) -> Option<PathBuf> {
        let path = &self.path?.0;
        // An empty entry is the current directory.
        let candidates = std::env::split_paths(path).map(|folder| absolute(self.cwd, &folder).join(name));
        candidates.into_iter().find(|file| is_executable(file))
    }
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// The start of a file: enough for a `#!` line, and to tell text from a binary.
fn head(file: &Path) -> Result<Vec<u8>, String> {
    let mut head = Vec::new();
    let opened = fs::File::open(file);
    match opened.and_then(|file| file.take(interpreter::SHEBANG_LIMIT as u64).read_to_end(&mut head)) {
        Ok(_) => Ok(head),
        // A program that may be executed and not read: it has no `#!` line, or the kernel could not run it.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied && is_executable(file) => {
            Ok(vec![0])
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
