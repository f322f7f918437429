//! What is run on the hosts of a deployment, as text for a shell there. Values of the declaration are words in it
//! whatever they hold; hooks and commands are text for a shell and stay as they are.

use crate::app::declaration::Deployment;

/// Exit codes of what we have run there, and what they say.
const ENDS: [(i32, &str); 10] = [
    (NOT_SET_UP, "it is not set up there yet (setup does that)"),
    (NO_GIT, "git is not in PATH there"),
    (FOLDERS, "its folders could not be made there"),
    (CLONE, "git clone failed there"),
    (FETCH, "git fetch failed there"),
    (NO_COMMIT, "there is no such branch, tag or commit"),
    (RESET, "git reset failed there"),
    (NO_LINK, "its current is there already, and is no link"),
    (LINK, "its current could not be linked there"),
    (RECORD, "its .deploys could not be written there"),
];
const NOT_SET_UP: i32 = 190;
const NO_GIT: i32 = 191;
const FOLDERS: i32 = 192;
const CLONE: i32 = 193;
const FETCH: i32 = 194;
const NO_COMMIT: i32 = 195;
const RESET: i32 = 196;
const NO_LINK: i32 = 197;
const LINK: i32 = 198;
const RECORD: i32 = 199;

/// What an exit code of ours says.
pub fn end(code: i32) -> Option<&'static str> {
    ENDS.iter().find(|end| end.0 == code).map(|end| end.1)
}

/// One word, for any shell that somebody may log in to. A backslash between single quotes is not the same to all
/// of them.
pub fn word(text: &str) -> String {
    let mut word = String::from("'");
    for c in text.chars() {
        match c {
            '\'' => word.push_str(r#"'"'"'"#),
            '\\' => word.push_str(r#"'"\\"'"#),
            c => word.push(c),
        }
    }
    word.push('\'');
    word
}

/// Makes the folders and the clone, or has the clone that is there look at `repo` from now on.
pub fn setup(to: &Deployment) -> String {
    let (source, repo, depth) = (below(to, "source"), word(&to.repo), depth(to));
    // What is no branch and no tag cannot be asked for; the first deployment goes to it.
    let branch = to.reference.strip_prefix("origin/").unwrap_or(&to.reference);
    let branch = if is_commit(branch) { String::new() } else { format!(" --branch {}", word(branch)) };
    let fetch = fetch(to);
    own(&format!(
        "command -v git >/dev/null || exit {NO_GIT}\n\
         mkdir -p {logs} {pids} || exit {FOLDERS}\n\
         if [ -e {source}/.git ]; then\n\
         cd {source} && git remote set-url origin {repo} && {fetch} || exit {FETCH}\n\
         else\n\
         git clone{depth}{branch} -- {repo} {source} || exit {CLONE}\n\
         fi\n\
         {link}",
        logs = below(to, "shared/logs"),
        pids = below(to, "shared/pids"),
        link = link(to),
    ))
}

/// Brings `reference` in, and takes it down as deployed. What upstream has of a branch is meant, even if only its
/// name is said: the branch of the clone is as old as the last deployment.
pub fn update(to: &Deployment, reference: &str) -> String {
    let (source, reference) = (below(to, "source"), word(reference));
    let fetch = fetch(to);
    own(&format!(
        "cd {source} 2>/dev/null || exit {NOT_SET_UP}\n\
         {fetch} || exit {FETCH}\n\
         for name in refs/tags/{reference} refs/remotes/origin/{reference} {reference}; do\n\
         commit=$(git rev-parse --verify --quiet \"$name^{{commit}}\") && break\n\
         done\n\
         [ -n \"$commit\" ] || exit {NO_COMMIT}\n\
         git reset --hard \"$commit\" || exit {RESET}\n\
         {link}\
         echo \"$commit\" >> {deploys} || exit {RECORD}\n",
        link = link(to),
        deploys = below(to, ".deploys"),
    ))
}

/// Prints the commit that is there.
pub fn current(to: &Deployment) -> String {
    own(&format!("cd {} 2>/dev/null || exit {NOT_SET_UP}\ngit rev-parse HEAD", below(to, "source")))
}

/// Prints the commits that were deployed, the oldest first.
pub fn deployed(to: &Deployment) -> String {
    let deploys = below(to, ".deploys");
    own(&format!(
        "[ -d {source} ] || exit {NOT_SET_UP}\n[ ! -e {deploys} ] || cat {deploys}",
        source = below(to, "source")
    ))
}

/// `text` of somebody's, in `current` and by the shell that they log in to: what they wrote is meant for that one.
pub fn hook(to: &Deployment, text: &str) -> String {
    let (current, shared) = (below(to, "current"), below(to, "shared"));
    format!("cd {current} 2>/dev/null || exit {NOT_SET_UP}\nexport SHARED={shared}\n{text}")
}

/// The same, with the variables of the environment.
pub fn post_deploy(to: &Deployment, text: &str) -> String {
    let variables = to.env.0.iter();
    let exports = variables
        .map(|(name, value)| format!("export {}={}\n", name.lossy().to_uppercase(), word(&value.lossy())));
    hook(to, &(exports.collect::<String>() + text))
}

/// For the plain shell: ours is the same wherever people log in.
fn own(script: &str) -> String {
    format!("/bin/sh -c {}", word(script))
}

fn depth(to: &Deployment) -> &'static str {
    if to.fast { " --depth=5" } else { "" }
}

/// Tags that were moved are moved here, too.
fn fetch(to: &Deployment) -> String {
    format!("git fetch{} --all --tags --force", depth(to))
}

fn link(to: &Deployment) -> String {
    let (current, source) = (below(to, "current"), below(to, "source"));
    format!(
        "if [ -e {current} ] && [ ! -L {current} ]; then exit {NO_LINK}; fi\n\
         ln -sfn {source} {current} || exit {LINK}\n"
    )
}

/// A path below that of the deployment, as a word. One that is not absolute is in the home of whoever logs in.
fn below(to: &Deployment, name: &str) -> String {
    let path = to.path.trim_end_matches('/');
    if to.path.starts_with('/') {
        return word(&format!("{path}/{name}"));
    }
    match path.strip_prefix('~').unwrap_or(path).trim_start_matches('/') {
        "" => format!("\"$HOME\"/{}", word(name)),
        path => format!("\"$HOME\"/{}", word(&format!("{path}/{name}"))),
    }
}

/// Whether it is one by its number.
pub fn is_commit(reference: &str) -> bool {
    (7..=64).contains(&reference.len()) && reference.chars().all(|c| c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn said(line: &str) -> String {
        let ran = Command::new("/bin/sh").args(["-c", line]).env("HOME", "/home/x").output().unwrap();
        assert!(ran.status.success(), "{line}: {ran:?}");
        String::from_utf8(ran.stdout).unwrap()
    }

    #[test]
    fn a_word_is_one_word_whatever_it_holds() {
        for text in ["plain", "", "it's", "$(echo x) `echo y`", "a\\'b\\", "\"; exit 1; #", "a\nb", "-n", "*"]
        {
            assert_eq!(said(&format!("printf %s {}", word(text))), text, "{text:?}");
            // Within another, as our scripts are.
            assert_eq!(said(&own(&format!("printf %s {}", word(text)))), text, "{text:?}");
        }
    }

    #[test]
    fn a_path_begins_at_the_root_or_at_home() {
        for (path, expected) in [
            ("/srv/a b/", "/srv/a b/source"),
            ("/", "/source"),
            ("~/app", "/home/x/app/source"),
            ("~", "/home/x/source"),
            ("app", "/home/x/app/source"),
            ("$HOME", "/home/x/$HOME/source"),
        ] {
            let to = Deployment { path: path.to_string(), ..Deployment::default() };
            assert_eq!(said(&format!("printf %s {}", below(&to, "source"))), expected, "{path}");
        }
    }

    #[test]
    fn a_commit_is_told_from_a_name() {
        for (reference, expected) in
            [("0123abc", true), ("0123ab", false), ("main", false), ("feedbee/x", false)]
        {
            assert_eq!(is_commit(reference), expected, "{reference}");
        }
    }

    #[test]
    fn every_end_of_ours_has_its_sentence() {
        let mut codes: Vec<i32> = ENDS.iter().map(|end| end.0).collect();
        codes.dedup();
        assert_eq!(codes, (NOT_SET_UP..=RECORD).collect::<Vec<_>>());
    }
}
