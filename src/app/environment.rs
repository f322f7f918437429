//! What a child sees: the environment of the shell that declared the app, then a short documented set of
//! facts, then what the user declared, then what its runtime needs for the channel.

use std::ffi::OsStr;
use std::path::Path;

use super::{App, Env, Filter, Text};
use crate::time::Wall;

/// Variables that speak of somebody else's child; never passed on.
const NOT_INHERITED: [&str; 16] = [
    "NODE_CHANNEL_FD",
    "NODE_CHANNEL_SERIALIZATION_MODE",
    "NODE_UNIQUE_ID",
    "NODE_APP_INSTANCE",
    "PMX_JOIN",
    "PMX_WORKER_ID",
    "PMX_HOLD",
    "PMX_CHANNEL_FD",
    "PMX_CLAIM",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "INVOCATION_ID",
];

/// The facts about one child that its environment tells.
pub struct Identity<'a> {
    /// pm2's `pm_id`.
    pub id: u32,
    /// Its place among the instances of its app.
    pub instance: u32,
    /// When its process was added to the list.
    pub created: Wall,
    /// The home of the daemon.
    pub home: &'a Path,
    /// Where it may say how it is.
    pub notify: Option<&'a Path>,
    /// Whether it is or may become a cluster worker.
    pub cluster: bool,
    /// By which the processes of this child are known, wherever they go.
    pub mark: &'a str,
}

/// How a child finds its channel.
pub enum Channel<'a> {
    /// Node's own way, on this fd.
    Node {
        /// The fd.
        fd: i32,
        /// Join the app's cluster, when and as whom.
        join: Option<Join<'a>>,
    },
    /// For the Node process at the end of a chain of launchers, on this fd.
    Launcher {
        /// The fd.
        fd: i32,
        /// Whoever creates this file owns the channel.
        claim: &'a Path,
        /// Join the app's cluster, as whom.
        join: Join<'a>,
    },
}

/// How a Node process becomes a worker of its app's cluster.
pub struct Join<'a> {
    /// Its worker id, at least 1.
    pub worker: u64,
    /// From its first instruction; else at its first `listen`.
    pub at_start: bool,
    /// It may not accept connections until told to.
    pub hold: bool,
    /// The file of the preload.
    pub preload: &'a Path,
}

/// The environment of one child.
pub fn environment(app: &App, identity: &Identity, channel: Option<&Channel>) -> Env {
    let mut env = (*app.inherit.0).clone();
    for name in NOT_INHERITED {
        env.0.remove(OsStr::new(name));
    }
    if app.variables.filter != Filter::None {
        env.0.retain(|name, _| app.variables.filter.passes(&name.lossy()));
    }
    if let Some(user) = &app.user {
        env.set("USER", user.name.as_str());
        env.set("LOGNAME", user.name.as_str());
        if let Some(home) = &user.home {
            env.set("HOME", home);
        }
    }
    // A container may have no place for one.
    if !identity.home.as_os_str().is_empty() {
        env.set("PMX_HOME", identity.home);
        env.set("PM2_HOME", identity.home);
    }
    env.set("name", app.name.as_str());
    env.set("namespace", app.namespace.as_str());
    env.set("pm_id", identity.id.to_string());
    env.set("pm_cwd", &app.cwd);
    env.set("pm_exec_path", &app.command.script);
    env.set("exec_mode", if identity.cluster { "cluster_mode" } else { "fork_mode" });
    env.set(app.variables.instance(), identity.instance.to_string());
    env.set("unique_id", unique_id(identity.id, identity.created));
    if let Some(socket) = identity.notify {
        env.set("NOTIFY_SOCKET", socket);
        if app.notify.watchdog.0 > 0 {
            env.set("WATCHDOG_USEC", app.notify.watchdog.0.saturating_mul(1_000).to_string());
        }
    }
    for (name, value) in &app.env.0 {
        env.0.insert(name.clone(), value.clone());
    }
    app.variables.increment(&mut env, identity.instance);
    env.set("PMX_INSTANCE", identity.mark);
    match channel {
        None => {}
        Some(Channel::Node { fd, join }) => {
            env.set("NODE_CHANNEL_FD", fd.to_string());
            env.set("NODE_CHANNEL_SERIALIZATION_MODE", "json");
            if let Some(join) = join {
                if join.at_start {
                    env.set("NODE_UNIQUE_ID", join.worker.to_string());
                }
                mark(&mut env, join);
            }
        }
        Some(Channel::Launcher { fd, claim, join }) => {
            env.set("PMX_CHANNEL_FD", fd.to_string());
            env.set("PMX_CLAIM", *claim);
            mark(&mut env, join);
        }
    }
    env
}

/// Whether a variable is about one child only, whatever was declared and wherever it was started from.
pub fn is_of_one_child(name: &str) -> bool {
    NOT_INHERITED.contains(&name) || name == "PMX_INSTANCE"
}

/// Options of Node without the one that loads our preload.
pub fn without_preload(options: &str) -> String {
    let ours = options.rfind("--require").filter(|at| options[*at..].contains(PRELOAD));
    ours.map_or(options, |at| &options[..at]).trim().to_string()
}

/// How the file of the preload is called.
const PRELOAD: &str = "pmx-preload";

/// A name for a process that no other one has, in the shape of pm2's.
pub fn unique_id(id: u32, created: Wall) -> String {
    format!("{id:08x}-{:04x}-4000-8000-{:012x}", created.0 >> 48, created.0 & 0xffff_ffff_ffff)
}

/// What the preload looks for, and the option that loads it.
fn mark(env: &mut Env, join: &Join) {
    env.set("PMX_JOIN", if join.at_start { "start" } else { "listen" });
    env.set("PMX_WORKER_ID", join.worker.to_string());
    if join.hold {
        env.set("PMX_HOLD", "1");
    }
    let mut options = env.get("NODE_OPTIONS").map_or(Vec::new(), |o| o.bytes().to_vec());
    if !options.is_empty() {
        options.push(b' ');
    }
    options.extend_from_slice(b"--require ");
    options.extend_from_slice(&quoted(Text::from(join.preload).bytes()));
    env.set("NODE_OPTIONS", options);
}

/// A path as one word of NODE_OPTIONS: Node splits at spaces and knows double quotes and backslashes.
fn quoted(path: &[u8]) -> Vec<u8> {
    if !path.iter().any(|byte| matches!(byte, b' ' | b'"' | b'\\')) {
        return path.to_vec();
    }
    let mut word = vec![b'"'];
    for &byte in path {
        if matches!(byte, b'"' | b'\\') {
            word.push(b'\\');
        }
        word.push(byte);
    }
    word.push(b'"');
    word
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::SharedEnv;
    use std::sync::Arc;

    fn value(env: &Env, name: &str) -> Option<String> {
        env.get(name).map(|text| text.lossy().into_owned())
    }

    fn identity() -> Identity<'static> {
        Identity {
            id: 4,
            instance: 1,
            created: Wall(5),
            home: Path::new("/home/a/.pmx"),
            notify: None,
            cluster: true,
            mark: "7-4-1",
        }
    }

    #[test]
    fn the_user_wins_over_us_and_strangers_marks_do_not_pass() {
        let mut inherit = Env::default();
        for (name, text) in [("PATH", "/bin"), ("NODE_UNIQUE_ID", "9"), ("NOTIFY_SOCKET", "/x"), ("A", "1")] {
            inherit.set(name, text);
        }
        let mut app = App { name: "api".into(), inherit: SharedEnv(Arc::new(inherit)), ..App::default() };
        app.env.set("name", "mine");
        app.env.set("A", "2");
        let env = environment(&app, &identity(), None);
        assert_eq!(value(&env, "name").as_deref(), Some("mine"));
        assert_eq!(value(&env, "A").as_deref(), Some("2"));
        assert_eq!(value(&env, "PATH").as_deref(), Some("/bin"));
        assert_eq!(value(&env, "pm_id").as_deref(), Some("4"));
        assert_eq!(value(&env, "NODE_APP_INSTANCE").as_deref(), Some("1"));
        assert_eq!(value(&env, "NODE_UNIQUE_ID"), None);
        assert_eq!(value(&env, "NOTIFY_SOCKET"), None);
        app.env.set("PMX_INSTANCE", "nobody's");
        assert_eq!(value(&environment(&app, &identity(), None), "PMX_INSTANCE").as_deref(), Some("7-4-1"));
    }

    #[test]
    fn what_differs_between_instances_and_what_does_not_get_through() {
        let mut inherit = Env::default();
        for (name, text) in [("AWS_KEY", "x"), ("NODE_ENV", "production"), ("PATH", "/bin")] {
            inherit.set(name, text);
        }
        let mut app = App { inherit: SharedEnv(Arc::new(inherit)), ..App::default() };
        app.env.set("PORT", "3000");
        app.env.set("AWS_REGION", "declared");
        app.variables.increment = Some("PORT".to_string());
        app.variables.instance = Some("WORKER".to_string());
        app.variables.filter.add("AWS_");
        let env = environment(&app, &identity(), None);
        for (name, expected) in [
            ("PORT", Some("3001")),
            ("WORKER", Some("1")),
            ("NODE_APP_INSTANCE", None),
            ("AWS_KEY", None),
            ("AWS_REGION", Some("declared")),
            ("NODE_ENV", Some("production")),
            ("PM2_HOME", Some("/home/a/.pmx")),
            ("unique_id", Some("00000004-0000-4000-8000-000000000005")),
        ] {
            assert_eq!(value(&env, name).as_deref(), expected, "{name}");
        }
        app.variables.filter = super::super::Filter::All;
        let env = environment(&app, &identity(), None);
        assert_eq!((value(&env, "NODE_ENV"), value(&env, "PATH").as_deref()), (None, Some("/bin")));
    }

    #[test]
    fn the_preload_follows_the_options_of_the_user() {
        let mut app = App::default();
        app.env.set("NODE_OPTIONS", "--max-old-space-size=100");
        let join = Join { worker: 3, at_start: true, hold: true, preload: Path::new("/my home/p.cjs") };
        let env = environment(&app, &identity(), Some(&Channel::Node { fd: 3, join: Some(join) }));
        let options = value(&env, "NODE_OPTIONS");
        assert_eq!(options.as_deref(), Some("--max-old-space-size=100 --require \"/my home/p.cjs\""));
        assert_eq!(without_preload("--x --require /h/run/pmx-preload.cjs"), "--x");
        assert_eq!(without_preload("--require ./mine.js"), "--require ./mine.js");
        assert_eq!(value(&env, "NODE_UNIQUE_ID").as_deref(), Some("3"));
        assert_eq!(value(&env, "PMX_HOLD").as_deref(), Some("1"));
    }
}
