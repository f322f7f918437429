//! Which program runs a script, and what kind of program that is. Pure: whether a program exists
//! is asked by the caller.

use super::Runtime;

/// How a script with a known extension is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByExtension {
    /// By the first of these that exists.
    First(&'static [&'static str]),
    /// TypeScript: `bun` or `tsx`, else `node` when it strips types by itself; `.tsx` it never does.
    TypeScript {
        /// Whether node can, too.
        node: bool,
    },
}

/// The first line of a script: `#!program argument`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shebang {
    /// The program; what `env` looks for, when it is `env`.
    pub program: String,
    /// Arguments before the script.
    pub args: Vec<String>,
}

/// How many bytes of a script the kernel reads for its `#!` line.
pub const SHEBANG_LIMIT: usize = 256;

/// The first version of node that runs TypeScript without an option, on each release line.
pub const NODE_STRIPS_TYPES: [(u32, u32); 2] = [(22, 18), (23, 6)];

/// How scripts with this extension (without its dot) are run.
pub fn by_extension(extension: &str) -> Option<ByExtension> {
    Some(match extension {
        "js" | "mjs" | "cjs" => ByExtension::First(&["node"]),
        "ts" | "mts" | "cts" => ByExtension::TypeScript { node: true },
        "tsx" => ByExtension::TypeScript { node: false },
        "coffee" => ByExtension::First(&["coffee"]),
        "py" => ByExtension::First(&["python3", "python"]),
        "sh" | "bash" => ByExtension::First(&["bash", "sh"]),
        "rb" => ByExtension::First(&["ruby"]),
        "php" => ByExtension::First(&["php"]),
        "pl" => ByExtension::First(&["perl"]),
        "ls" => ByExtension::First(&["lsc"]),
        _ => return None,
    })
}

/// Programs that are started by way of node, or start it, but are not the app themselves.
const LAUNCHERS: &[&str] = &[
    "astro",
    "asdf",
    "babel-node",
    "bunx",
    "chrt",
    "concurrently",
    "corepack",
    "cross-env",
    "dotenv",
    "dotenvx",
    "dumb-init",
    "env",
    "env-cmd",
    "esno",
    "fnm",
    "ionice",
    "jiti",
    "lerna",
    "make",
    "mise",
    "nest",
    "next",
    "ng",
    "nice",
    "nodemon",
    "npm",
    "npm-cli.js",
    "npm-run-all",
    "npx",
    "npx-cli.js",
    "nuxi",
    "nuxt",
    "nx",
    "pnpm",
    "pnpx",
    "react-scripts",
    "remix-serve",
    "run-p",
    "run-s",
    "stdbuf",
    "swc-node",
    "taskset",
    "tini",
    "ts-node",
    "ts-node-dev",
    "ts-node-esm",
    "ts-node-script",
    "tsnd",
    "tsx",
    "turbo",
    "vite",
    "vite-node",
    "volta",
    "vue-cli-service",
    "webpack",
    "webpack-dev-server",
    "yarn",
    "yarn.js",
    "yarnpkg",
    "zx",
];

const SHELLS: &[&str] = &["ash", "bash", "dash", "fish", "ksh", "mksh", "sh", "zsh"];

/// What kind of program `[program] script` starts. `program` is the interpreter, or for a script
/// that is executed directly what its `#!` line names, or nothing.
pub fn runtime(program: Option<&str>, script: &str) -> Runtime {
    if LAUNCHERS.contains(&basename(script)) {
        return Runtime::Launcher;
    }
    // A program executed by itself is its own interpreter: `pmx start /usr/bin/node -- app.js`.
    match basename(program.unwrap_or(script)) {
        "node" | "nodejs" => Runtime::Node,
        "bun" => Runtime::Bun,
        name if LAUNCHERS.contains(&name) || SHELLS.contains(&name) => Runtime::Launcher,
        _ => Runtime::Other,
    }
}

/// Whether `program` is a Python, of whatever version.
pub fn is_python(program: &str) -> bool {
    let name = basename(program);
    name.strip_prefix("python").is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

/// Reads the `#!` line at the start of a file.
pub fn shebang(head: &[u8]) -> Option<Shebang> {
    let line = head.strip_prefix(b"#!")?;
    let line = line.split(|&b| b == b'\n').next().unwrap_or(line);
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_whitespace().map(String::from);
    let program = words.next()?;
    let mut args: Vec<String> = words.collect();
    if basename(&program) != "env" {
        return Some(Shebang { program, args });
    }
    let is_of_env = |word: &String| word.starts_with('-') || word.contains('=');
    let at = args.iter().position(|word| !is_of_env(word))?;
    let rest = args.split_off(at + 1);
    Some(Shebang { program: args.pop()?, args: rest })
}

/// Whether a node of this version (`v22.18.0`) runs TypeScript without an option.
pub fn node_strips_types(version: &str) -> bool {
    let mut numbers = version.trim().trim_start_matches('v').split('.').map(|part| part.parse::<u32>().ok());
    let (Some(Some(major)), Some(Some(minor))) = (numbers.next(), numbers.next()) else { return false };
    let newest = NODE_STRIPS_TYPES[NODE_STRIPS_TYPES.len() - 1].0;
    major > newest || NODE_STRIPS_TYPES.iter().any(|&(line, since)| major == line && minor >= since)
}

/// What an app is called that nobody named: the script without folders and extension.
pub fn default_name(script: &str) -> String {
    let base = basename(script);
    match base.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem.to_string(),
        _ => base.to_string(),
    }
}

/// What a shell line is called: the program it starts, past assignments (`A=1 node x` is `node`).
pub fn line_name(line: &str) -> String {
    let is_assignment = |word: &&str| word.split_once('=').is_some_and(|(name, _)| !name.contains('/'));
    let word = line.split_whitespace().find(|word| !is_assignment(word));
    let word = word.unwrap_or("line").trim_matches(|c| "'\"(){};&|".contains(c));
    match default_name(word) {
        name if name.is_empty() => "line".to_string(),
        name => name,
    }
}

/// What is wrong with a name, if anything.
pub fn name_fault(name: &str) -> Option<&'static str> {
    /// The longest name, in characters.
    const NAME_LIMIT: usize = 128;
    match name {
        "" => Some("a name cannot be empty"),
        "all" => Some("\"all\" means every process and cannot be a name"),
        _ if name.chars().count() > NAME_LIMIT => Some("a name has at most 128 characters"),
        _ if name.contains('/') => Some("a name cannot hold a /"),
        _ if name.chars().any(char::is_control) => Some("a name cannot hold control characters"),
        _ => None,
    }
}

fn basename(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes() {
        for (program, script, expected) in [
            (Some("node"), "/srv/app.js", Runtime::Node),
            (Some("/opt/node-22/bin/node"), "/srv/app.js", Runtime::Node),
            (Some("nodejs"), "/srv/app.js", Runtime::Node),
            (None, "/usr/bin/node", Runtime::Node),
            (Some("node"), "/usr/bin/npm", Runtime::Launcher),
            (Some("node"), "/srv/node_modules/.bin/next", Runtime::Launcher),
            (Some("/srv/node_modules/.bin/tsx"), "/srv/app.ts", Runtime::Launcher),
            (Some("bash"), "/srv/run.sh", Runtime::Launcher),
            (Some("/bin/sh"), "/srv/run", Runtime::Launcher),
            (Some("bun"), "/srv/app.ts", Runtime::Bun),
            (Some("python3"), "/srv/app.py", Runtime::Other),
            (None, "/srv/server", Runtime::Other),
            (None, "/srv/nodes", Runtime::Other),
        ] {
            assert_eq!(runtime(program, script), expected, "{program:?} {script}");
        }
    }

    #[test]
    fn first_lines() {
        for (head, expected) in [
            (&b"#!/bin/sh\necho"[..], Some(("/bin/sh", ""))),
            (b"#! /usr/bin/perl -w -T\n", Some(("/usr/bin/perl", "-w -T"))),
            (b"#!/usr/bin/env node\n", Some(("node", ""))),
            (b"#!/usr/bin/env -S A=1 node --harmony\n", Some(("node", "--harmony"))),
            (b"#!/usr/bin/env\n", None),
            (b"#!\n", None),
            (b"#!", None),
            (b"", None),
            (b"\x7fELF", None),
            (b"console.log(1)", None),
        ] {
            let found = shebang(head).map(|found| (found.program, found.args.join(" ")));
            let expected = expected.map(|(program, args)| (program.to_string(), args.to_string()));
            assert_eq!(found, expected, "{}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn nodes_that_strip_types() {
        for (version, expected) in [
            ("v20.20.2", false),
            ("v22.17.1", false),
            ("v22.18.0\n", true),
            ("v23.5.0", false),
            ("v23.6.0", true),
            ("v24.0.0", true),
            ("nonsense", false),
            ("", false),
        ] {
            assert_eq!(node_strips_types(version), expected, "{version}");
        }
    }

    #[test]
    fn names() {
        for (script, expected) in
            [("/srv/app.js", "app"), ("api.server.js", "api.server"), (".hidden", ".hidden"), ("ls", "ls")]
        {
            assert_eq!(default_name(script), expected);
        }
        for (line, expected) in [
            ("npm run start", "npm"),
            ("PORT=1 ./bin/www.js --x=1", "www"),
            ("'quoted thing' x", "quoted"),
            ("A=1", "line"),
            ("/ /", "line"),
        ] {
            assert_eq!(line_name(line), expected, "{line}");
        }
        for (name, ok) in [
            ("api", true),
            ("with space", true),
            ("0", true),
            ("", false),
            ("all", false),
            ("a/b", false),
            ("a\nb", false),
        ] {
            assert_eq!(name_fault(name).is_none(), ok, "{name}");
        }
        assert!(name_fault(&"x".repeat(128)).is_none());
        assert!(name_fault(&"x".repeat(129)).is_some());
    }

    #[test]
    fn pythons() {
        for (program, expected) in
            [("python", true), ("/usr/bin/python3.12", true), ("pythonic", false), ("node", false)]
        {
            assert_eq!(is_python(program), expected, "{program}");
        }
    }
}
