//! Declaration files of every form, and what their environments come to, seen on real processes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::probe::is_root;
use crate::support::{Home, wait_until};

const SLEEPER: &str = "#!/bin/sh\nexec sleep 1000\n";

/// A variable of a running process.
fn variable(home: &Home, id: u32, name: &str) -> Option<String> {
    let mut found = None;
    wait_until("the child has its environment", || {
        let bytes = fs::read(format!("/proc/{}/environ", home.pid(id))).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let pairs = || text.split('\0').filter_map(|pair| pair.split_once('='));
        found = pairs().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
        pairs().any(|(key, _)| key == "PMX_INSTANCE")
    });
    found
}

#[test]
fn the_programs_and_the_json_that_pm2_evaluates() {
    for (name, text) in [
        (
            "a.config.js",
            "console.log('noise'); module.exports = { apps: [{ script: './app.sh', env: { X: process.env.FROM || 'y' } }] };",
        ),
        ("a.config.cjs", "module.exports = { apps: { script: './app.sh', env: { X: 'y' } } };"),
        (
            "a.config.mjs",
            "export default { apps: [{ script: ['.', 'app.sh'].join('/'), env: { X: 'y' } }] };",
        ),
        ("a.json", "// comment\n[{ script: './app.sh', env: { X: process.env.FROM || 'y', }, }]"),
        ("a.json5", "{ 'script': './app.sh', /* bare */ env: { X: 'y' } }"),
        (
            "package.json",
            r#"{"name": "p", "version": "1.0.0", "pm2": [{"script": "./app.sh", "env": {"X": "y"}}]}"#,
        ),
    ] {
        let home = Home::new();
        home.file("app.sh", SLEEPER);
        home.file(name, text);
        home.pmx(&["start", name]).ok();
        assert_eq!(variable(&home, 0, "X").as_deref(), Some("y"), "{name}");
        home.pmx(&["stop", name]).ok();
        assert_eq!(home.status(0), "stopped", "{name}");
    }
}

/// Comments, bare names and single quotes need no node.
#[test]
fn json5_is_read_without_node() {
    let home = Home::new();
    home.file("app.sh", "#!/bin/sh\nexec /bin/sleep 1000\n");
    home.file("bin/nothing", "");
    std::os::unix::fs::symlink("/bin/sh", home.dir().join("bin/sh")).unwrap();
    let path = home.dir().join("bin");
    let alone = [("PATH", path.to_str().unwrap())];
    home.file("a.json", "// comment\n[{ script: './app.sh', env: { X: 'y', }, }]");
    home.pmx_with(&alone, &["start", "a.json"]).ok();
    assert_eq!(variable(&home, 0, "X").as_deref(), Some("y"));
    for (name, text, sentence) in [
        (
            "b.json",
            "[{ script: './app.sh' },\n { script: process.env.X }]",
            "start b.json:2:12: expected a value, got \"process\"",
        ),
        ("c.config.js", "", "start c.config.js: it is JavaScript, and node is not in PATH"),
        (
            "d.json",
            "[{ script: './app.sh' },\n\n { name: 'x',\n script: './app.sh',\n kill_timeout: 'x' }]",
            "d.json:5: app \"x\": kill_timeout: expected milliseconds",
        ),
        (
            "e.json",
            "[{ script: './app.sh' },\n { script: 'other/app.sh' }]",
            "e.json:2: app 2: the name \"app\" is that of app 1 on line 1 already",
        ),
        (
            "f.json",
            "[{ script: './app.sh' },\n { script: './gone' }]",
            "f.json:2: app \"gone\": ./gone: no such file",
        ),
    ] {
        home.file(name, text);
        let said = home.pmx_with(&alone, &["start", name]).failed();
        assert!(said.err.starts_with(sentence), "{name}: {}", said.err);
    }
    assert_eq!(home.list().len(), 1);
}

#[cfg(feature = "yaml")]
#[test]
fn yaml_declares_apps() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    let text = "apps:\n  - name: web\n    script: ./app.sh\n    env: {X: y, ZIP: '0123'}\n    env_production: {X: z}\n";
    home.file("ecosystem.yaml", text);
    home.pmx(&["start"]).ok();
    assert_eq!(variable(&home, 0, "ZIP").as_deref(), Some("0123"));
    home.pmx(&["start", "ecosystem.yaml", "--env", "production"]).ok();
    assert_eq!(variable(&home, 0, "X").as_deref(), Some("z"));
    home.file("a.yml", &format!("{text}    kill_timeout: soon\n"));
    let said = home.pmx(&["start", "a.yml"]).failed();
    assert!(said.err.starts_with("a.yml:6: app \"web\": kill_timeout: expected"), "{}", said.err);
    home.file("b.yml", "apps:\n  - script: ./app.sh\n   x: 1\n");
    let said = home.pmx(&["start", "b.yml"]).failed();
    assert!(said.err.starts_with("start b.yml:3:"), "{}", said.err);
    home.pmx(&["delete", "ecosystem.yaml"]).ok();
    assert!(home.list().is_empty());
}

#[cfg(not(feature = "yaml"))]
#[test]
fn without_its_feature_yaml_is_refused_with_a_sentence() {
    let home = Home::new();
    home.file("a.yml", "script: x");
    let said = home.pmx(&["start", "a.yml"]).failed();
    assert!(said.err.contains("a.yml: this pmx was built without the feature yaml"), "{}", said.err);
}

#[test]
fn start_alone_takes_the_file_that_is_there_and_env_chooses_in_it() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    let said = home.pmx(&["start"]).failed();
    assert!(said.err.contains("no ecosystem.config.js or processes.json is here"), "{}", said.err);
    home.file(
        "ecosystem.config.js",
        "module.exports = {
            apps: [{ script: './app.sh', env: { A: 'base', B: 'base' }, env_production: { B: 'over' } }],
            deploy: { production: { env: { B: 'deploy', C: 'deploy' } } },
        };",
    );
    home.pmx(&["start"]).ok();
    assert_eq!(variable(&home, 0, "B").as_deref(), Some("base"));
    assert_eq!(variable(&home, 0, "C"), None);
    home.pmx(&["start", "ecosystem.config.js", "--env", "production"]).ok();
    for (name, value) in [("A", "base"), ("B", "over"), ("C", "deploy")] {
        assert_eq!(variable(&home, 0, name).as_deref(), Some(value), "{name}");
    }
    let said = home.pmx(&["start", "ecosystem.config.js", "--env", "nowhere"]).ok();
    assert!(said.err.contains("it has no env_nowhere"), "{}", said.err);
    let said = home.pmx(&["restart", "app", "--env", "production"]).failed();
    assert!(said.err.contains("it chooses from a declaration file"), "{}", said.err);
}

#[test]
fn a_program_that_fails_says_where_and_nothing_is_started() {
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    for (name, text, sentence) in [
        (
            "a.config.js",
            "module.exports = {\n  apps: [nothing],\n};",
            "a.config.js:2: ReferenceError: nothing is not defined",
        ),
        ("b.config.js", "module.exports = {\n  apps: [,\n", "b.config.js:3: SyntaxError"),
        (
            "c.json",
            "[{ script: './app.sh' },\n { script: missing }]",
            "c.json:2: ReferenceError: missing is not defined",
        ),
        ("d.config.js", "process.exit(3)", "d.config.js: node ended without a value (exit status: 3)"),
        (
            "e.config.js",
            "module.exports = { apps: [{ script: './app.sh', max_restrats: 3 }] }",
            "did you mean max_restarts?",
        ),
        (
            "f.config.js",
            "module.exports = { apps: [{ script: './app.sh' }, { script: 3 }] }",
            "app 2: script: expected",
        ),
    ] {
        home.file(name, text);
        let said = home.pmx(&["start", name]).failed();
        assert!(said.err.contains(sentence), "{name}: {}", said.err);
    }
    assert!(home.list().is_empty());
}

#[test]
fn a_program_that_never_ends_is_ended() {
    let home = Home::new();
    home.file("a.config.js", "for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);");
    let said = home.pmx(&["start", "a.config.js"]).failed();
    assert!(said.err.contains("took longer than 10 s"), "{}", said.err);
}

#[test]
fn root_evaluates_as_the_owner_and_nothing_that_anybody_may_write() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    home.file("app.sh", SLEEPER);
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    open(home.dir(), 0o755);
    let file = home.file(
        "a.config.js",
        "module.exports = { apps: [{ script: './app.sh', env: { WHO: String(process.getuid()) } }] }",
    );
    std::os::unix::fs::chown(&file, Some(65_534), Some(65_534)).unwrap();
    home.pmx(&["start", "a.config.js"]).ok();
    assert_eq!(variable(&home, 0, "WHO").as_deref(), Some("65534"));
    let script = "const seen = Object.keys(process.env).filter((n) => !n.startsWith('__')).sort().join(' ');\n\
        const session = require('fs').readFileSync('/proc/self/stat', 'utf8').split(') ')[1].split(' ')[3];\n\
        module.exports = { apps: [{ script: './app.sh', env: {\n\
            SEEN: seen, THEIRS: process.env.HOME + process.env.USER, LEADS: String(session == process.pid) } }] }";
    fs::write(&file, script).unwrap();
    let given =
        [("SECRET_OF_ROOT", "x"), ("NODE_ENV", "production"), ("LANG", "C"), ("TZ", "UTC"), ("USER", "root")];
    home.pmx_with(&given, &["start", "a.config.js"]).ok();
    let seen = variable(&home, 0, "SEEN").unwrap();
    assert_eq!(seen, "HOME LANG LOGNAME NODE_ENV PATH TZ USER");
    assert_eq!(variable(&home, 0, "THEIRS").as_deref(), Some("/nonexistentnobody"));
    assert_eq!(variable(&home, 0, "LEADS").as_deref(), Some("true"));
    assert_eq!(variable(&home, 0, "SECRET_OF_ROOT").as_deref(), Some("x"), "the app has what it is given");
    open(&file, 0o666);
    let said = home.pmx(&["start", "a.config.js"]).failed();
    assert!(said.err.contains("not evaluated as root, because anybody may write to"), "{}", said.err);
    open(&file, 0o644);
    open(home.dir(), 0o777);
    let said = home.pmx(&["start", "a.config.js"]).failed();
    assert!(said.err.contains("not evaluated as root"), "{}", said.err);
    open(home.dir(), 0o755);
}
