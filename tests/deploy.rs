//! `pmx deploy`: to hosts that are folders of the test's own, by an `ssh` that runs its line right here; and once by
//! a real sshd.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Home, Ran, finish, free_port, wait_for, wait_until};

/// Takes down what it was asked for; each host is a home below that of who asks. The host `down` is.
const SSH: &str = r#"#!/bin/sh
log=
while [ "$1" != -- ]; do log="$log$1 "; shift; done
echo "$log$2" >> "$HOME/ssh.log"
host=${2##*@}
if [ "$host" = down ]; then echo 'ssh: connect to host down port 22: no route' >&2; exit 255; fi
HOME=$HOME/$host
export HOME
mkdir -p "$HOME" && cd "$HOME" && exec sh -c "$3"
"#;
/// What a shell must not take for anything but a folder.
const PATH: &str = "it's $(touch hacked) a\\b; \"folder\"";
const APP: &str = "#!/bin/sh\necho \"$(cat version) $COLOUR $SIZE\" >> \"$RAN\"\nexec sleep 1000\n";

/// A repository, its origin, and hosts.
struct Site {
    home: Home,
}

impl Site {
    fn new() -> Site {
        let home = Home::new();
        home.file("bin/ssh", SSH);
        executable(&home.dir().join("bin/ssh"));
        symlink(env!("CARGO_BIN_EXE_pmx"), home.dir().join("bin/pmx")).unwrap();
        let site = Site { home };
        git(site.home.dir(), &["init", "-q", "--bare", "origin.git"]);
        git(site.home.dir(), &["clone", "-q", "origin.git", "work"]);
        git(&site.work(), &["checkout", "-q", "-B", "main"]);
        site.home.file("work/app.sh", APP);
        executable(&site.work().join("app.sh"));
        site.declare(json!({}));
        site.commit(1);
        site
    }

    fn work(&self) -> PathBuf {
        self.home.dir().join("work")
    }

    fn origin(&self) -> String {
        self.home.dir().join("origin.git").display().to_string()
    }

    /// Writes the declaration, with some fields of `production` otherwise.
    fn declare(&self, otherwise: Value) {
        let mut production = json!({
            "host": "web", "repo": self.origin(), "path": format!("~/{PATH}"), "ref": "origin/main",
            "env": { "COLOUR": "blue", "size": "it's 1 $x" },
        });
        for (field, value) in otherwise.as_object().unwrap() {
            production[field] = value.clone();
        }
        let app = json!({ "name": "api", "script": "./app.sh", "env": { "COLOUR": "red" } });
        let file = json!({ "apps": [app], "deploy": { "production": production } });
        self.home.file("work/ecosystem.json", &file.to_string());
    }

    /// A commit of everything, upstream. Returns its name.
    fn commit(&self, version: u32) -> String {
        self.home.file("work/version", &format!("{version}\n"));
        git(&self.work(), &["add", "-A"]);
        git(&self.work(), &["commit", "-q", "-m", &version.to_string()]);
        git(&self.work(), &["push", "-q", "-u", "origin", "main"]);
        git(&self.work(), &["rev-parse", "HEAD"])
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.home.command(&[&["deploy"], words].concat());
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.home.dir().join("bin").display()));
        command.env("HOME", self.home.dir().join("hosts")).env("RAN", self.home.dir().join("ran"));
        fs::create_dir_all(self.home.dir().join("hosts")).unwrap();
        command.current_dir(self.work());
        command
    }

    fn deploy(&self, words: &[&str]) -> Ran {
        finish(self.command(words).spawn().unwrap())
    }

    /// What is on a host.
    fn on(&self, host: &str, path: &str) -> PathBuf {
        self.home.dir().join("hosts").join(host).join(path)
    }

    fn ssh_log(&self) -> String {
        fs::read_to_string(self.home.dir().join("hosts/ssh.log")).unwrap_or_default()
    }

    /// Waits until the app has been run so often and so.
    fn ran(&self, expected: &str) {
        let ran = || fs::read_to_string(self.home.dir().join("ran")).unwrap_or_default();
        wait_until(expected, || ran() == expected);
    }
}

fn git(folder: &Path, args: &[&str]) -> String {
    let mut git = Command::new("git");
    git.args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]).args(args);
    let ran = git.current_dir(folder).output().unwrap();
    assert!(ran.status.success(), "{args:?}: {ran:?}");
    String::from_utf8(ran.stdout).unwrap().trim().to_string()
}

fn executable(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn an_app_is_deployed_and_brought_back() {
    let site = Site::new();
    let first = git(&site.work(), &["rev-parse", "HEAD"]);
    for task in [&["update"][..], &["list"], &["current"], &["exec", "true"]] {
        let err = site.deploy(&[&["production"], task].concat()).failed().err;
        assert!(
            err.starts_with("deploy production: web: ") && err.contains("it is not set up there yet"),
            "{err}"
        );
    }
    site.deploy(&["production", "setup"]).ok();
    for folder in ["shared/logs", "shared/pids", "source/.git"] {
        assert!(site.on("web", PATH).join(folder).is_dir(), "{folder}");
    }
    let current = site.on("web", PATH).join("current");
    assert_eq!(fs::read_link(&current).unwrap(), site.on("web", PATH).join("source"));
    assert_eq!(site.deploy(&["production", "current"]).ok().out, format!("{first}\n"));
    assert_eq!(site.deploy(&["production", "list"]).ok().out, "");
    assert!(site.deploy(&["production", "previous"]).failed().err.contains("nothing was deployed before"));

    // The app's own file, the default post-deploy, and the variables of the environment below those of the app.
    let out = site.deploy(&["production"]).ok().out;
    assert!(
        out.contains("web: post-deploy: pmx startOrRestart 'ecosystem.json' --env 'production'\n"),
        "{out}"
    );
    assert!(out.ends_with("deploy production: web: origin/main is deployed\n"), "{out}");
    site.ran("1 red it's 1 $x\n");
    assert_eq!(site.home.process(0)["pm2_env"]["pm_cwd"], current.display().to_string());
    let second = site.commit(2);
    site.deploy(&["ecosystem.json", "production", "update"]).ok();
    site.ran("1 red it's 1 $x\n2 red it's 1 $x\n");
    assert_eq!(site.deploy(&["production", "curr"]).ok().out, format!("{second}\n"));
    assert_eq!(site.deploy(&["production", "prev"]).ok().out, format!("{first}\n"));
    assert_eq!(site.deploy(&["production", "list"]).ok().out, format!("0\t{second}\n1\t{first}\n"));

    site.deploy(&["production", "revert"]).ok();
    site.ran("1 red it's 1 $x\n2 red it's 1 $x\n1 red it's 1 $x\n");
    assert_eq!(
        site.deploy(&["production", "list"]).ok().out,
        format!("0\t{first}\n1\t{second}\n2\t{first}\n")
    );
    let err = site.deploy(&["production", "revert", "3"]).failed().err;
    assert_eq!(err, "deploy production: web: only 3 deployments are known there\n");

    for words in [
        &["exec", "cat version; pwd"][..],
        &["run", "cat version; pwd"],
        &["exec", "--", "cat", "version;", "pwd"],
    ] {
        let out = site.deploy(&[&["production"], words].concat()).ok().out;
        assert_eq!(out, format!("1\n{}\n", current.display()));
    }
    let err = site.deploy(&["production", "exec", "exit 7"]).failed().err;
    assert_eq!(err, "deploy production: web: exit code 7\n");

    // A tag, a branch by its name alone and a commit; a tag that was moved.
    git(&site.work(), &["tag", "live", &first]);
    git(&site.work(), &["push", "-q", "--tags"]);
    site.deploy(&["production", "ref", "live"]).ok();
    git(&site.work(), &["tag", "-f", "live", &second]);
    git(&site.work(), &["push", "-q", "-f", "--tags"]);
    let third = site.commit(3);
    for (reference, commit) in [("live", &second), ("main", &third), (&first[..9], &first)] {
        site.deploy(&["production", "ref", reference]).ok();
        assert_eq!(&site.deploy(&["production", "current"]).ok().out.trim(), commit, "{reference}");
    }
    let err = site.deploy(&["production", "ref", "nowhere"]).failed().err;
    assert!(
        err.ends_with("deploy production: web: nowhere: there is no such branch, tag or commit\n"),
        "{err}"
    );

    // Set up once more: the clone is kept, and looks at what is declared now.
    git(site.home.dir(), &["clone", "-q", "--bare", "origin.git", "moved.git"]);
    site.declare(json!({ "repo": site.home.dir().join("moved.git") }));
    site.deploy(&["production", "setup"]).ok();
    site.deploy(&["production", "exec", "git remote -v"]).ok().out.find("moved.git").unwrap();
    assert!(!site.on("web", "hacked").exists() && !current.join("hacked").exists());
}

#[test]
fn what_is_not_committed_and_pushed_is_not_deployed() {
    let site = Site::new();
    site.declare(json!({ "post-deploy": "true" }));
    site.commit(1);
    site.deploy(&["production", "setup"]).ok();
    let asked = site.ssh_log();
    site.home.file("work/version", "mine\n");
    let refused = |sentence: &str| {
        for words in [&["production"][..], &["production", "ref", "main"]] {
            let err = site.deploy(words).failed().err;
            assert!(err.starts_with("deploy production: ") && err.contains(sentence), "{err}");
        }
        assert_eq!(site.ssh_log(), asked, "no host is asked");
    };
    refused("there are changes that are not committed");
    git(&site.work(), &["add", "-A"]);
    refused("there are staged changes that are not committed");
    git(&site.work(), &["commit", "-q", "-m", "mine"]);
    let mine = git(&site.work(), &["rev-parse", "HEAD"]);
    refused(&format!("{} is not pushed yet", &mine[..7]));
    site.deploy(&["production", "--force"]).ok();
    assert!(site.deploy(&["production", "list"]).ok().out.starts_with("0\t"), "it was deployed");
    // A checkout without a branch, as machines have it, and one whose branch has no upstream.
    let refused = |sentence: &str| assert!(site.deploy(&["production"]).failed().err.contains(sentence));
    git(&site.work(), &["checkout", "-q", "--detach"]);
    refused("is not pushed yet");
    git(&site.work(), &["checkout", "-q", "--detach", "origin/main"]);
    site.deploy(&["production"]).ok();
    git(&site.work(), &["checkout", "-q", "-b", "other"]);
    site.deploy(&["production"]).ok();
    // Files that git does not know are of no matter; revert goes to what is upstream already.
    site.home.file("work/unknown", "");
    site.deploy(&["production"]).ok();
    site.home.file("work/version", "mine\n");
    site.deploy(&["production", "revert"]).ok();
    fs::rename(site.work().join(".git"), site.home.dir().join("away")).unwrap();
    refused("this is no git repository");
}

#[test]
fn hooks_are_run_at_their_steps_and_end_it_when_they_fail() {
    let site = Site::new();
    let log = || fs::read_to_string(site.home.dir().join("hooks")).unwrap_or_default();
    let hooks = |fails: &str| {
        let line = |name: &str| {
            let end = if name == fails { "exit 7" } else { ":" };
            format!(
                "echo \"{name} ${{PWD##*/}} ${{SHARED##*/}} $SIZE\" >> '{}/hooks'; {end}",
                site.home.dir().display()
            )
        };
        let names = ["pre-setup", "post-setup", "pre-deploy-local", "pre-deploy", "post-deploy"];
        site.declare(Value::Object(
            names.map(|name| (name.to_string(), line(name).into())).into_iter().collect(),
        ));
        site.commit(1);
        let _ = fs::remove_file(site.home.dir().join("hooks"));
    };
    hooks("");
    site.deploy(&["production", "setup"]).ok();
    assert_eq!(log(), "pre-setup web  \npost-setup current shared \n");
    site.deploy(&["production"]).ok();
    let update =
        "pre-deploy-local work  \npre-deploy current shared \npost-deploy current shared it's 1 $x\n";
    assert_eq!(log(), format!("pre-setup web  \npost-setup current shared \n{update}"));

    for (fails, ran) in [("pre-deploy-local", 1), ("pre-deploy", 2), ("post-deploy", 3)] {
        hooks(fails);
        let before = site.deploy(&["production", "list"]).ok().out.lines().count();
        let err = site.deploy(&["production"]).failed().err;
        let on = if fails == "pre-deploy-local" { "" } else { "web: " };
        assert!(err.ends_with(&format!("deploy production: {on}{fails}: exit code 7\n")), "{err}");
        assert_eq!(log().lines().count(), ran, "{}", log());
        let after = site.deploy(&["production", "list"]).ok().out.lines().count();
        assert_eq!(after - before, usize::from(fails == "post-deploy"), "what is deployed is taken down");
    }
    hooks("pre-setup");
    let err = site.deploy(&["production", "setup"]).failed().err;
    assert!(err.ends_with("deploy production: web: pre-setup: exit code 7\n"), "{err}");

    // A script here is run there.
    site.home.file("work/prepare.sh", "pwd > prepared\n");
    site.declare(json!({ "pre-setup": "prepare.sh" }));
    site.deploy(&["production", "setup"]).ok();
    let prepared = fs::read_to_string(site.on("web", "prepared")).unwrap();
    assert_eq!(prepared, format!("{}\n", site.home.dir().join("hosts/web").display()));
}

#[test]
fn hosts_come_one_after_another_until_one_fails() {
    let site = Site::new();
    site.declare(
        json!({ "host": ["a", "b", "c"], "post-deploy": "true", "pre-deploy-local": "echo x >> ../local" }),
    );
    let commit = site.commit(1);
    site.deploy(&["production", "setup"]).ok();
    site.deploy(&["production"]).ok();
    assert_eq!(fs::read_to_string(site.home.dir().join("local")).unwrap(), "x\n", "once for all of them");
    let out = site.deploy(&["production", "current"]).ok().out;
    assert_eq!(out, format!("a:\n{commit}\nb:\n{commit}\nc:\n{commit}\n"));
    site.declare(json!({ "host": ["a", "b", "down", "c"], "post-deploy": "true" }));
    let commit = site.commit(2);
    let err = site.deploy(&["production"]).failed().err;
    let last = "deploy production: down: origin/main: ssh could not connect or log in (exit code 255) \
                (done on a, b; not tried on c)\n";
    assert!(err.contains("no route") && err.ends_with(last), "{err}");
    for (host, expected) in [("a", true), ("b", true), ("c", false)] {
        let found = git(&site.on(host, PATH).join("source"), &["rev-parse", "HEAD"]);
        assert_eq!(found == commit, expected, "{host}");
    }
}

#[test]
fn ssh_is_given_what_is_declared() {
    let site = Site::new();
    site.declare(json!({
        "user": "deployer", "key": "/keys/a b", "port": 2222, "ssh_options": ["StrictHostKeyChecking=no", "LogLevel=ERROR"],
        "forward-agent": true, "needs_tty": true, "post-deploy": "true",
    }));
    site.commit(1);
    site.deploy(&["production", "setup"]).ok();
    let options = "-o StrictHostKeyChecking=no -o LogLevel=ERROR";
    let there = "-A -p 2222 -i /keys/a b deployer@web\n";
    assert_eq!(site.ssh_log(), format!("{options} -t {there}"));
    site.deploy(&["production", "list"]).ok();
    assert_eq!(
        site.ssh_log(),
        format!("{options} -t {there}{options} {there}"),
        "what is read here needs no terminal"
    );
    // Whoever has no ssh is told so.
    fs::remove_file(site.home.dir().join("bin/ssh")).unwrap();
    let mut command = site.command(&["production", "list"]);
    command.env("PATH", site.home.dir().join("bin"));
    let err = finish(command.spawn().unwrap()).failed().err;
    assert_eq!(err, "deploy production: web: ssh is not in PATH\n");
}

#[test]
fn fast_fetches_the_last_commits_only() {
    let site = Site::new();
    for version in 2..=8 {
        site.commit(version);
    }
    let repo = format!("file://{}", site.origin());
    site.declare(json!({ "fetch": "fast", "repo": repo, "post-deploy": "true" }));
    site.commit(9);
    site.deploy(&["production", "setup"]).ok();
    let count = || git(&site.on("web", PATH).join("source"), &["rev-list", "--count", "HEAD"]);
    assert_eq!(count(), "5");
    site.commit(10);
    site.deploy(&["production"]).ok();
    assert_eq!(fs::read_to_string(site.on("web", PATH).join("source/version")).unwrap(), "10\n");
    assert!(count().parse::<u32>().unwrap() <= 6, "{}", count());
}

#[test]
fn localhost_is_here_and_needs_no_ssh() {
    let site = Site::new();
    let path = site.home.dir().join("srv");
    site.declare(json!({ "host": "localhost", "path": path, "ref": "main", "post-deploy": "pwd > ../done" }));
    site.commit(1);
    site.deploy(&["production", "setup"]).ok();
    site.deploy(&["production"]).ok();
    let done = fs::read_to_string(path.join("done")).unwrap();
    assert_eq!(done, format!("{}\n", path.join("current").display()));
    assert_eq!(site.ssh_log(), "");
    // What is in the way is not taken for the deployment.
    fs::remove_file(path.join("current")).unwrap();
    fs::create_dir(path.join("current")).unwrap();
    let err = site.deploy(&["production"]).failed().err;
    assert!(err.ends_with("localhost: main: its current is there already, and is no link\n"), "{err}");
}

#[test]
fn what_is_wrong_with_a_deployment_is_said_before_anything_is_done() {
    let site = Site::new();
    let said = |words: &[&str], sentence: &str| {
        let err = site.deploy(words).failed().err;
        assert!(err.contains(sentence) && err.lines().count() == 1, "{words:?}: {err}");
    };
    said(&[], "deploy ecosystem.json: to which environment? (it has production)");
    said(&["staging"], "ecosystem.json:1: deploy: no environment \"staging\": it has production");
    said(&["production", "lst"], "deploy production: unknown task \"lst\": did you mean list?");
    said(&["none.json", "production"], "deploy none.json: no such file");
    said(&["-", "production"], "deploy -: a file is needed");
    site.home.file(
        "work/bad.yaml",
        "deploy:\n  production:\n    host: web\n    repo: x\n    path: /x\n    port: no\n",
    );
    #[cfg(feature = "yaml")]
    said(
        &["bad.yaml", "production"],
        "bad.yaml:6: deploy: production: port: expected a port number, got \"no\"",
    );
    site.declare(json!({ "post_deploy": "true" }));
    said(&["production"], "post_deploy: no such field: did you mean post-deploy?");
    site.declare(json!({ "frobnicate": true, "post-deploy": "true" }));
    let err = site.deploy(&["production", "--force"]).failed().err;
    assert!(err.contains("frobnicate: it is no field, and does nothing\n"), "{err}");
    fs::remove_file(site.work().join("ecosystem.json")).unwrap();
    said(&["production"], "deploy: no ecosystem.config.js or package.json is here");
    let package = json!({ "deploy": { "production": { "host": "h", "path": "/p", "ref": "m" } } });
    site.home.file("work/package.json", &package.to_string());
    said(
        &["production"],
        "package.json:1: deploy: production: repo is missing: expected the address of a git",
    );
}

/// A real sshd on the loopback, of the present user and for them alone.
struct Sshd {
    child: Child,
    port: u16,
}

impl Sshd {
    /// `None`: there is none on this machine.
    fn start(dir: &Path, env: &str) -> Option<Sshd> {
        let program =
            ["/usr/sbin/sshd", "/usr/bin/sshd"].into_iter().find(|path| Path::new(path).exists())?;
        fs::create_dir_all(dir).unwrap();
        for name in ["host", "id"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f", name])
                .current_dir(dir)
                .status();
            assert!(made.unwrap().success());
        }
        fs::rename(dir.join("id.pub"), dir.join("authorized")).unwrap();
        let port = free_port();
        let at = dir.display();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {at}/host\nAuthorizedKeysFile {at}/authorized\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin yes\nSetEnv {env}\n"
        );
        fs::write(dir.join("config"), config).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        // As root it wants an empty directory of its own, which is made where nobody else sees it.
        let line = format!("exec {program} -D -e -f {at}/config");
        let mut command = match nix::unistd::geteuid().is_root() {
            true => {
                let mut command = Command::new("unshare");
                let private = format!("mount -t tmpfs none /run && mkdir /run/sshd && {line}");
                command.args(["-m", "/bin/sh", "-c", &private]);
                command
            }
            false => {
                let mut command = Command::new("/bin/sh");
                command.args(["-c", &line]);
                command
            }
        };
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut sshd = Sshd { child, port };
        wait_for("sshd to listen", || {
            if let Some(status) = sshd.child.try_wait().unwrap() {
                panic!("sshd: {status}: {}", fs::read_to_string(dir.join("log")).unwrap());
            }
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Some(sshd)
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_sshd_is_deployed_to() {
    let site = Site::new();
    let dir = site.home.dir().to_path_buf();
    let path = format!("{}:{}", dir.join("bin").display(), std::env::var("PATH").unwrap());
    let env =
        format!("PATH={path} PMX_HOME={} RAN={}", site.home.path().display(), dir.join("ran").display());
    let Some(sshd) = Sshd::start(&dir.join("sshd"), &env) else {
        return println!("\n!!! SKIPPED: there is no sshd here (openssh-server)\n");
    };
    // The real one now.
    fs::remove_file(dir.join("bin/ssh")).unwrap();
    let known = format!("UserKnownHostsFile={}", dir.join("sshd/known").display());
    site.declare(json!({
        "host": "127.0.0.1", "port": sshd.port, "key": dir.join("sshd/id"), "path": dir.join("srv").join(PATH),
        "ssh_options": ["StrictHostKeyChecking=accept-new", known, "IdentitiesOnly=yes", "BatchMode=yes"],
    }));
    let first = site.commit(1);
    site.deploy(&["production", "setup"]).ok();
    site.deploy(&["production"]).ok();
    site.ran("1 red it's 1 $x\n");
    let second = site.commit(2);
    site.deploy(&["production"]).ok();
    site.ran("1 red it's 1 $x\n2 red it's 1 $x\n");
    assert_eq!(site.deploy(&["production", "list"]).ok().out, format!("0\t{second}\n1\t{first}\n"));
    site.deploy(&["production", "revert"]).ok();
    assert_eq!(site.deploy(&["production", "exec", "cat version"]).ok().out, "1\n");
    assert!(
        site.deploy(&["production", "exec", "exit 9"]).failed().err.ends_with("127.0.0.1: exit code 9\n")
    );
    drop(sshd);
    let err = site.deploy(&["production", "current"]).failed().err;
    assert!(err.ends_with("127.0.0.1: ssh could not connect or log in (exit code 255)\n"), "{err}");
}
