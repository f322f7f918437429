//! The rules of the house: imports go down only, and `unsafe` lives in `sys`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Who may import whom; the table of `src/lib.rs`, which is checked to say the same.
const MAY_IMPORT: [(&str, &[&str]); 16] = [
    ("time", &[]),
    ("app", &["time"]),
    ("cluster", &["time"]),
    ("node", &["time"]),
    ("protocol", &["app", "time"]),
    ("pm2", &["app", "protocol", "time"]),
    ("supervisor", &["app", "protocol", "time"]),
    ("sys", &["time"]),
    ("daemon", &["app", "cluster", "node", "protocol", "supervisor", "sys", "time"]),
    ("keeper", &["sys", "time"]),
    ("load", &["sys", "time"]),
    ("logs", &["app", "sys", "time"]),
    ("cli", &["app", "logs", "pm2", "protocol", "load", "sys", "time"]),
    ("web", &["app", "logs", "pm2", "protocol", "sys", "time"]),
    ("main", &["cli", "daemon", "keeper", "sys", "web"]),
    ("lib", &[]),
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn files() -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&src, &mut paths);
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&src).unwrap().display().to_string();
        (name, fs::read_to_string(path).unwrap())
    };
    paths.into_iter().map(read).collect()
}

/// Top-level modules that a line names, by `crate::` or from outside by `pmx::`.
fn named(line: &str) -> Vec<&str> {
    let code = line.split("//").next().unwrap_or("");
    let mut modules = Vec::new();
    for prefix in ["crate::", "pmx::"] {
        for (at, _) in code.match_indices(prefix) {
            let rest = &code[at + prefix.len()..];
            let list = rest.strip_prefix('{').map_or(rest, |inner| inner.split('}').next().unwrap_or(inner));
            let words = if rest.starts_with('{') { list.split(',').collect() } else { vec![list] };
            for word in words {
                let end = word.trim().find(|c: char| !c.is_ascii_lowercase() && c != '_');
                let word = word.trim();
                modules.push(&word[..end.unwrap_or(word.len())]);
            }
        }
    }
    modules
}

#[test]
fn imports_go_down_only() {
    let rules: BTreeMap<&str, &[&str]> = MAY_IMPORT.into_iter().collect();
    let mut faults = Vec::new();
    for (name, text) in files() {
        let module = name.split(['/', '.']).next().unwrap();
        let allowed = rules.get(module).unwrap_or_else(|| panic!("{module} has no rule: add it to the map"));
        for (number, line) in text.lines().enumerate() {
            for target in named(line) {
                if rules.contains_key(target) && target != module && !allowed.contains(&target) {
                    faults.push(format!("src/{name}:{}: {module} may not import {target}", number + 1));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_rule_sees_every_form_of_import() {
    assert_eq!(named("use crate::app::App;"), ["app"]);
    assert_eq!(named("use crate::{app::App, sys, time::Mono};"), ["app", "sys", "time"]);
    assert_eq!(named("    crate::sys::reason(&error) // crate::daemon"), ["sys"]);
    assert_eq!(named("use pmx::daemon;"), ["daemon"]);
}

#[test]
fn the_map_tells_the_same_rule() {
    let map = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    for (module, allowed) in MAY_IMPORT.into_iter().filter(|(module, _)| *module != "lib") {
        let row = map.lines().find(|line| line.starts_with(&format!("//! | `{module}`")));
        let row = row.unwrap_or_else(|| panic!("{module} is not on the map in src/lib.rs"));
        let cell = row.trim_end_matches('|').rsplit('|').next().unwrap().trim();
        let expected = if allowed.is_empty() { "nothing".to_string() } else { allowed.join(", ") };
        assert_eq!(cell, expected, "{row}");
    }
}

#[test]
fn unsafe_lives_in_sys_and_says_why() {
    let mut faults = Vec::new();
    for (name, text) in files() {
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            let is_unsafe =
                ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|w| code.contains(w));
            if is_unsafe && !name.starts_with("sys/") {
                faults.push(format!("src/{name}:{}: unsafe outside sys", at + 1));
            }
            let reasoned = (at.saturating_sub(8)..=at)
                .any(|n| lines[n].contains("SAFETY:") || lines[n].contains("# Safety"));
            if is_unsafe && !reasoned {
                faults.push(format!("src/{name}:{}: unsafe without its SAFETY line", at + 1));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
