//! `deploy`: an app's repository brought to other hosts, by ssh and git, as the `deploy` of a declaration file says.
//! All of it is the work of this client; no daemon is asked.

mod host;
mod local;
mod script;

use std::path::{Path, PathBuf};

use super::Session;
use super::caller::{Caller, absolute};
use super::screen::{Fail, escaped};
use super::source;
use crate::app::declaration::{self, Deployment};
use crate::app::nearest::nearest;
use host::Host;

/// What is to be done on each host.
#[derive(Debug, PartialEq)]
enum Task {
    /// Its folders, and the first clone.
    Setup,
    /// A newer commit.
    Update { reference: String },
    /// The commit of the deployment so many before the last one.
    Revert { back: usize },
    /// Which commit is there?
    Current,
    /// Which one was there before?
    Previous,
    /// Which were there, the newest first?
    List,
    /// A line for the shell, in what is deployed.
    Exec { line: String },
}

/// The names of tasks; the first is ours.
const TASKS: [&[&str]; 8] = [
    &["setup"],
    &["update"],
    &["revert"],
    &["current", "curr"],
    &["previous", "prev"],
    &["exec", "run"],
    &["list"],
    &["ref"],
];

/// A deployment of one environment.
struct Plan<'a> {
    environment: &'a str,
    to: Deployment,
    task: Task,
    /// What is run there in the end.
    post_deploy: String,
}

/// `pmx deploy [file] <environment> [task]`.
pub fn deploy(session: &mut Session<'_, '_>, operands: &[String]) -> Result<(), Fail> {
    let (file, words) = file(session.caller, operands)?;
    let document = source::read(session.caller, &file).map_err(|error| format!("deploy {error}"))?;
    let Some((environment, words)) = words.split_first() else {
        let known = declaration::environments(&document);
        return Err(Fail::Sentence(format!("deploy {file}: to which environment? ({known})")));
    };
    let (to, warnings) = declaration::deployment(&file, &document, environment)?;
    for warning in warnings {
        session.screen.complain(&warning);
    }
    let after = session.options.changes.args.iter().flatten().map(|word| word.lossy().into_owned());
    let words: Vec<String> = words.iter().cloned().chain(after).collect();
    let task = task(&words, &to).map_err(|what| format!("deploy {environment}: {what}"))?;
    let post_deploy = to.hooks.post_deploy.clone().unwrap_or_else(|| {
        let program = if session.caller.is_pm2() { "pm2" } else { "pmx" };
        let (file, name) = (script::word(&file), script::word(environment));
        format!("{program} startOrRestart {file} --env {name}")
    });
    Plan { environment, to, task, post_deploy }.run(session)
}

/// The declaration file that is meant, and what else was said.
fn file<'a>(caller: &Caller, operands: &'a [String]) -> Result<(String, &'a [String]), String> {
    match operands.split_first() {
        Some((file, _)) if file == "-" => {
            Err("deploy -: a file is needed, which the hosts have, too".to_string())
        }
        Some((file, rest)) if source::is_declaration(file) => Ok((file.clone(), rest)),
        _ => {
            let package = || caller.cwd.join("package.json").is_file().then(|| "package.json".to_string());
            let file = source::usual(caller).or_else(package);
            let file = file.ok_or("deploy: no ecosystem.config.js or package.json is here")?;
            Ok((file, operands))
        }
    }
}

/// The error follows `deploy production: `.
fn task(words: &[String], to: &Deployment) -> Result<Task, String> {
    let Some((typed, rest)) = words.split_first() else {
        return Ok(Task::Update { reference: to.reference.clone() });
    };
    let Some(name) = TASKS.iter().find(|names| names.contains(&typed.as_str())).map(|names| names[0]) else {
        let known = || TASKS.iter().flat_map(|names| names.iter().copied());
        return Err(match nearest(typed, known()) {
            Some(near) => format!("unknown task {typed:?}: did you mean {near}?"),
            None => format!("unknown task {typed:?}: expected {}", known().collect::<Vec<_>>().join(", ")),
        });
    };
    let most = match name {
        "exec" => usize::MAX,
        "ref" | "revert" => 1,
        _ => 0,
    };
    if let Some(extra) = rest.get(most) {
        return Err(format!("{typed} does not take {extra:?}"));
    }
    Ok(match (name, rest.first()) {
        ("setup", _) => Task::Setup,
        ("update", _) => Task::Update { reference: to.reference.clone() },
        ("revert", None) => Task::Revert { back: 1 },
        ("revert", Some(back)) => {
            let back = back.parse().ok();
            Task::Revert { back: back.ok_or("revert: expected how many deployments to go back")? }
        }
        ("current", _) => Task::Current,
        ("previous", _) => Task::Previous,
        ("list", _) => Task::List,
        ("exec", Some(_)) => Task::Exec { line: rest.join(" ") },
        ("ref", Some(name)) if !name.starts_with('-') => Task::Update { reference: name.clone() },
        ("ref", _) => return Err("ref: expected a branch, a tag or a commit".to_string()),
        (name, _) => return Err(format!("{name}: expected a line for a shell")),
    })
}

impl Plan<'_> {
    fn run(&self, session: &mut Session<'_, '_>) -> Result<(), Fail> {
        let caller = session.caller;
        let is_new = matches!(self.task, Task::Update { .. });
        if is_new && !session.options.force {
            local::check(caller).map_err(|what| self.fault(&what))?;
        }
        if is_new || matches!(self.task, Task::Revert { .. }) {
            self.before(session)?;
        }
        for (at, name) in self.to.hosts.iter().enumerate() {
            let host = Host { to: &self.to, name, caller };
            match self.on(session, &host) {
                Err(Fail::Sentence(what)) => {
                    return Err(self.fault(&format!("{name}: {what}{}", self.others(at))));
                }
                result => result?,
            }
        }
        Ok(())
    }

    /// How far it came with several hosts, when it ends at one of them.
    fn others(&self, at: usize) -> String {
        let (done, left) = (&self.to.hosts[..at], &self.to.hosts[at + 1..]);
        let mut told = Vec::new();
        if !done.is_empty() {
            told.push(format!("done on {}", done.join(", ")));
        }
        if !left.is_empty() {
            told.push(format!("not tried on {}", left.join(", ")));
        }
        if told.is_empty() { String::new() } else { format!(" ({})", told.join("; ")) }
    }

    fn fault(&self, what: &str) -> Fail {
        Fail::Sentence(format!("deploy {}: {what}", self.environment))
    }

    /// A line of somebody's that is run here.
    fn before(&self, session: &mut Session<'_, '_>) -> Result<(), Fail> {
        let Some(line) = &self.to.hooks.pre_deploy_local else { return Ok(()) };
        self.tell(session, None, &format!("pre-deploy-local: {}", escaped(line)))?;
        let status = host::shell(session.caller, line).status();
        let ran = status.map_err(|error| format!("run a shell: {}", crate::sys::reason(&error)));
        ran.and_then(host::ended).map_err(|what| self.fault(&format!("pre-deploy-local: {what}")))
    }

    fn on(&self, session: &mut Session<'_, '_>, host: &Host) -> Result<(), Fail> {
        let hooks = &self.to.hooks;
        let hook = |text: &Option<String>| text.as_ref().map(|text| script::hook(&self.to, text));
        match &self.task {
            Task::Setup => {
                if let Some(text) = &hooks.pre_setup {
                    self.tell(session, Some(host), &format!("pre-setup: {}", escaped(text)))?;
                    let ran = match local_script(session.caller, text) {
                        Some(file) => host.feed(&file),
                        None => host.run(text),
                    };
                    ran.map_err(|what| format!("pre-setup: {what}"))?;
                }
                self.tell(session, Some(host), &format!("setup: {}", escaped(&self.to.repo)))?;
                host.run(&script::setup(&self.to))?;
                self.step(session, host, "post-setup", &hooks.post_setup, hook(&hooks.post_setup))?;
                self.tell(session, Some(host), "it is set up")
            }
            Task::Update { reference } => self.update(session, host, reference),
            Task::Revert { back } => {
                let commits = self.deployed(host)?;
                let commit = commits.iter().rev().nth(*back).ok_or_else(|| match commits.len() {
                    1 => "only 1 deployment is known there".to_string(),
                    known => format!("only {known} deployments are known there"),
                })?;
                self.update(session, host, commit)
            }
            Task::Current => {
                let commit = host.ask(&script::current(&self.to))?;
                self.answer(session, host, &format!("{commit}\n"))
            }
            Task::Previous => {
                let commits = self.deployed(host)?;
                let commit =
                    commits.iter().rev().nth(1).ok_or_else(|| "nothing was deployed before".to_string())?;
                self.answer(session, host, &format!("{commit}\n"))
            }
            Task::List => {
                let commits = self.deployed(host)?;
                let lines = commits.iter().rev().enumerate().map(|(at, commit)| format!("{at}\t{commit}\n"));
                self.answer(session, host, &lines.collect::<String>())
            }
            Task::Exec { line } => {
                self.answer(session, host, "")?;
                session.screen.flush()?;
                Ok(host.run(&script::hook(&self.to, line))?)
            }
        }
    }

    fn update(&self, session: &mut Session<'_, '_>, host: &Host, reference: &str) -> Result<(), Fail> {
        let hooks = &self.to.hooks;
        let pre_deploy = hooks.pre_deploy.as_ref().map(|text| script::hook(&self.to, text));
        self.step(session, host, "pre-deploy", &hooks.pre_deploy, pre_deploy)?;
        self.tell(session, Some(host), &format!("update: {reference}"))?;
        let updated = host.run(&script::update(&self.to, reference));
        updated.map_err(|what| format!("{reference}: {what}"))?;
        let line = script::post_deploy(&self.to, &self.post_deploy);
        self.step(session, host, "post-deploy", &Some(self.post_deploy.clone()), Some(line))?;
        self.tell(session, Some(host), &format!("{reference} is deployed"))
    }

    /// Runs a hook there, if there is one.
    fn step(
        &self,
        session: &mut Session<'_, '_>,
        host: &Host,
        name: &str,
        text: &Option<String>,
        line: Option<String>,
    ) -> Result<(), Fail> {
        let (Some(text), Some(line)) = (text, line) else { return Ok(()) };
        self.tell(session, Some(host), &format!("{name}: {}", escaped(text)))?;
        Ok(host.run(&line).map_err(|what| format!("{name}: {what}"))?)
    }

    /// The commits that were deployed there, the oldest first.
    fn deployed(&self, host: &Host) -> Result<Vec<String>, String> {
        let text = host.ask(&script::deployed(&self.to))?;
        match text.lines().find(|line| !script::is_commit(line)) {
            Some(odd) => Err(format!("its .deploys holds what is no commit: {odd:?}")),
            None => Ok(text.lines().map(String::from).collect()),
        }
    }

    /// What is going on, before it does: it may print as well.
    fn tell(&self, session: &mut Session<'_, '_>, host: Option<&Host>, what: &str) -> Result<(), Fail> {
        let on = host.map_or(String::new(), |host| format!("{}: ", host.name));
        session.screen.line(&format!("deploy {}: {on}{what}", self.environment))?;
        session.screen.flush()
    }

    /// What was asked for; of several hosts each under its name.
    fn answer(&self, session: &mut Session<'_, '_>, host: &Host, text: &str) -> Result<(), Fail> {
        let name = if self.to.hosts.len() > 1 { format!("{}:\n", host.name) } else { String::new() };
        session.screen.data(format!("{name}{text}").as_bytes())
    }
}

/// pm2 takes a `pre-setup` that is the path of a file here for a script that is to be run there.
fn local_script(caller: &Caller, text: &str) -> Option<PathBuf> {
    Some(absolute(&caller.cwd, Path::new(text.trim()))).filter(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_what_was_typed() {
        let to = Deployment { reference: "origin/main".to_string(), ..Deployment::default() };
        let update = |reference: &str| Task::Update { reference: reference.to_string() };
        for (line, expected) in [
            ("", update("origin/main")),
            ("update", update("origin/main")),
            ("ref v1.0", update("v1.0")),
            ("setup", Task::Setup),
            ("revert", Task::Revert { back: 1 }),
            ("revert 3", Task::Revert { back: 3 }),
            ("curr", Task::Current),
            ("current", Task::Current),
            ("prev", Task::Previous),
            ("previous", Task::Previous),
            ("list", Task::List),
            ("exec ls -l", Task::Exec { line: "ls -l".to_string() }),
            ("run ls", Task::Exec { line: "ls".to_string() }),
        ] {
            let words: Vec<String> = line.split_whitespace().map(String::from).collect();
            assert_eq!(task(&words, &to), Ok(expected), "{line}");
        }
        for (line, sentence) in [
            ("updat", "unknown task \"updat\": did you mean update?"),
            ("frobnicate", "unknown task \"frobnicate\": expected setup, update, revert, current, curr"),
            ("revert x", "revert: expected how many deployments to go back"),
            ("ref", "ref: expected a branch, a tag or a commit"),
            ("ref --x", "ref: expected a branch, a tag or a commit"),
            ("exec", "exec: expected a line for a shell"),
            ("setup now", "setup does not take \"now\""),
            ("revert 1 2", "revert does not take \"2\""),
        ] {
            let words: Vec<String> = line.split_whitespace().map(String::from).collect();
            let error = task(&words, &to).unwrap_err();
            assert!(error.starts_with(sentence), "{line}: {error}");
        }
    }
}
