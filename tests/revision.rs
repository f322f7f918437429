//! The commit that an app runs from: `pull`, `forward`, `backward`, in repositories of the test's own.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Home, wait_until};

fn git(folder: &Path, args: &[&str]) -> String {
    let mut git = Command::new("git");
    git.args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]).args(args);
    let ran = git.current_dir(folder).output().unwrap();
    assert!(ran.status.success(), "{args:?}: {ran:?}");
    String::from_utf8(ran.stdout).unwrap().trim().to_string()
}

/// A repository of three commits and its clone, which an app runs in.
fn repositories(home: &Home) {
    let origin = home.dir().join("origin");
    fs::create_dir_all(&origin).unwrap();
    git(&origin, &["init", "-q"]);
    home.file("origin/app.sh", "#!/bin/sh\ncat version >> ../ran\nexec sleep 1000\n");
    for version in 1..=3 {
        commit(home, version);
    }
    git(home.dir(), &["clone", "-q", "origin", "clone"]);
}

fn commit(home: &Home, version: u32) {
    let origin = home.dir().join("origin");
    home.file("origin/version", &format!("{version}\n"));
    git(&origin, &["add", "-A"]);
    git(&origin, &["commit", "-q", "-m", &version.to_string()]);
}

#[test]
fn an_app_goes_through_its_commits() {
    let home = Home::new();
    repositories(&home);
    home.pmx(&["start", "app.sh", "-n", "api", "--cwd", "clone"]).ok();
    let ran = |expected: &str| {
        wait_until(expected, || fs::read_to_string(home.dir().join("ran")).unwrap_or_default() == expected);
    };
    ran("3\n");
    assert!(home.pmx(&["pull", "api"]).ok().out.ends_with(" is the newest\n"));
    home.pmx(&["backward", "api"]).ok();
    ran("3\n2\n");
    home.pmx(&["backward", "api"]).ok();
    ran("3\n2\n1\n");
    let err = home.pmx(&["backward", "api"]).failed().err;
    assert!(err.ends_with("there is no commit before this one\n"), "{err}");
    home.pmx(&["forward", "api"]).ok();
    ran("3\n2\n1\n2\n");
    home.file(
        "origin/process.json",
        r#"{"apps": [{"name": "api", "script": "app.sh", "post_update": ["echo built >> ../ran"]}]}"#,
    );
    commit(&home, 4);
    let out = home.pmx(&["pull", "api"]).ok().out;
    assert!(out.contains("pull api: echo built") && out.contains(" became "), "{out}");
    ran("3\n2\n1\n2\nbuilt\n4\n");
    let first = git(&home.dir().join("origin"), &["rev-list", "--max-parents=0", "HEAD"]);
    home.pmx(&["pull", "api", &first]).ok();
    ran("3\n2\n1\n2\nbuilt\n4\n1\n");
}

#[test]
fn what_was_declared_is_run_after_a_pull_unless_the_commit_says_otherwise() {
    let home = Home::new();
    repositories(&home);
    home.file(
        "web.json",
        r#"{"name": "web", "script": "./app.sh", "cwd": "clone", "post_update": "echo declared >> ../ran"}"#,
    );
    home.pmx(&["start", "web.json"]).ok();
    let ran = |expected: &str| {
        wait_until(expected, || fs::read_to_string(home.dir().join("ran")).unwrap_or_default() == expected);
    };
    ran("3\n");
    home.pmx(&["backward", "web"]).ok();
    ran("3\ndeclared\n2\n");
    home.file(
        "origin/process.json",
        r#"{"apps": [{"name": "web", "script": "app.sh", "post_update": ["echo of the commit >> ../ran"]}]}"#,
    );
    commit(&home, 4);
    home.pmx(&["pull", "web"]).ok();
    ran("3\ndeclared\n2\nof the commit\n4\n");
}

#[test]
fn nothing_of_ours_is_lost_and_nothing_is_reloaded_after_a_failure() {
    let home = Home::new();
    repositories(&home);
    home.pmx(&["start", "app.sh", "-n", "api", "--cwd", "clone"]).ok();
    let pid = home.pid(0);
    let clone = home.dir().join("clone");
    home.file("clone/version", "mine\n");
    let err = home.pmx(&["backward", "api"]).failed().err;
    assert!(err.contains("local changes"), "{err}");
    assert_eq!(fs::read_to_string(clone.join("version")).unwrap(), "mine\n");
    git(&clone, &["commit", "-q", "-a", "-m", "mine"]);
    for line in [&["backward", "api"][..], &["pull", "api", "HEAD^"]] {
        let err = home.pmx(line).failed().err;
        assert!(err.contains("is not upstream: push it first"), "{err}");
    }
    git(&clone, &["reset", "-q", "--hard", "origin/HEAD"]);
    home.file("origin/package.json", r#"{"name": "api", "post_update": ["exit 7"]}"#);
    commit(&home, 4);
    let err = home.pmx(&["pull", "api"]).failed().err;
    assert!(err.contains("exit status: 7") && err.contains("not reloaded"), "{err}");
    assert_eq!(home.pid(0), pid);
    home.pmx(&["pull", "api", "--upload-pack=x"]).failed();
    home.pmx(&["pull", "nobody"]).failed();
    home.file("app.sh", "#!/bin/sh\nexec sleep 1000\n");
    home.pmx(&["start", "app.sh", "-n", "plain"]).ok();
    assert!(home.pmx(&["pull", "plain"]).failed().err.contains("git"));
}
