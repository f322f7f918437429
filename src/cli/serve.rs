//! `serve`: a folder of static files as an app. What it serves is in its environment, under pm2's names; the
//! app itself is this program.

mod files;
mod request;
mod server;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::Session;
use super::caller::{Caller, absolute};
use super::screen::Fail;
use super::start;
use crate::app::declaration::{Declared, site};
use crate::app::{Env, Mode, Text};
use server::Site;

/// The hidden command that the app runs.
pub const APP: &str = "serve-files";

/// `pmx serve [folder] [port]`.
pub fn serve(session: &mut Session<'_, '_>, operands: &[String]) -> Result<(), Fail> {
    let options = &session.options.serve;
    let port = match operands.get(1).or(options.port.as_ref()) {
        None => site::PORT,
        Some(text) => text.parse().map_err(|_| format!("serve: expected a port, got {text:?}"))?,
    };
    let folder = operands.first().map_or(".", String::as_str);
    let root = absolute(&session.caller.cwd, Path::new(folder));
    if !root.is_dir() {
        return Err(Fail::Sentence(format!("serve {folder}: no such folder")));
    }
    let (user, password) = (&options.username, &options.password);
    if user.is_some() != password.is_some() {
        let needs = "needs both --basic-auth-username and --basic-auth-password";
        return Err(Fail::Sentence(format!("serve {folder}: basic authentication {needs}")));
    }
    let mut env = Env::default();
    env.set("PM2_SERVE_PATH", root.as_os_str());
    env.set("PM2_SERVE_PORT", port.to_string());
    if options.spa {
        env.set("PM2_SERVE_SPA", "true");
    }
    // A password is not declared, because what is declared is shown: it is inherited, as if the shell had set it.
    let mut caller = session.caller.clone();
    if let Some((user, password)) = user.as_ref().zip(password.as_ref()) {
        caller.env.set("PM2_SERVE_BASIC_AUTH", "true");
        caller.env.set("PM2_SERVE_BASIC_AUTH_USERNAME", user.as_str());
        caller.env.set("PM2_SERVE_BASIC_AUTH_PASSWORD", password.as_str());
    }
    let changes = session.options.changes.clone();
    let declared = Declared { script: Text::from(site::SCRIPT), env, changes, ..Declared::default() };
    let mut session = Session {
        caller: &caller,
        home: session.home.clone(),
        options: std::mem::take(&mut session.options),
        screen: session.screen,
        connection: session.connection.take(),
    };
    start::one(&mut session, &declared)
}

/// What is run for an app whose script is `serve`.
pub fn served(declared: &Declared) -> Result<Declared, String> {
    let program = std::env::current_exe()
        .map_err(|error| format!("serve: find this program: {}", crate::sys::reason(&error)))?;
    let mut served = declared.clone();
    served.script = Text::from(&program);
    served.interpreter = Some("none".to_string());
    served.fork = Some(true);
    served.changes.mode = Some(Mode::Fork);
    served.changes.args.get_or_insert_default().insert(0, Text::from(APP));
    served.changes.name.get_or_insert_with(|| {
        let port = declared.env.get("PM2_SERVE_PORT").map(|port| port.lossy().into_owned());
        site::default_name(&port.unwrap_or_else(|| site::PORT.to_string()))
    });
    Ok(served)
}

/// The app. It comes back only if it cannot serve.
pub fn app(caller: &Caller) -> Result<(), String> {
    let (address, site) = what(caller)?;
    match server::serve(address, &site) {
        Ok(never) => match never {},
        Err(error) => {
            Err(format!("serve {} on {address}: {}", site.root.display(), crate::sys::reason(&error)))
        }
    }
}

fn what(caller: &Caller) -> Result<(SocketAddr, Site), String> {
    let var = |name: &str| caller.var(&format!("PM2_SERVE_{name}"));
    let text = |name: &str| var(name).map(|value| value.to_string_lossy().into_owned());
    let is_set = |name: &str| text(name).is_some_and(|value| value != "false" && value != "0");
    let port = text("PORT").unwrap_or_else(|| site::PORT.to_string());
    let host = text("HOST").unwrap_or_else(|| "0.0.0.0".to_string());
    let host = if host == "localhost" { "127.0.0.1".to_string() } else { host };
    let host = host.parse().map_err(|_| format!("PM2_SERVE_HOST: expected an address, got {host:?}"))?;
    let port = port.parse().map_err(|_| format!("PM2_SERVE_PORT: expected a port, got {port:?}"))?;
    let root = absolute(&caller.cwd, &var("PATH").map_or(PathBuf::from("."), PathBuf::from));
    let homepage = text("HOMEPAGE").unwrap_or_else(|| "index.html".to_string());
    let homepage = PathBuf::from(homepage.trim_start_matches('/'));
    let credentials = match is_set("BASIC_AUTH") {
        false => None,
        true => {
            let missing = "PM2_SERVE_BASIC_AUTH needs PM2_SERVE_BASIC_AUTH_USERNAME and _PASSWORD";
            let (user, password) =
                text("BASIC_AUTH_USERNAME").zip(text("BASIC_AUTH_PASSWORD")).ok_or(missing)?;
            Some(base64(format!("{user}:{password}").as_bytes()))
        }
    };
    Ok((SocketAddr::new(host, port), Site { root, homepage, spa: is_set("SPA"), credentials }))
}

/// As RFC 4648 has it.
pub fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number = (0..3).fold(0u32, |number, at| number << 8 | u32::from(*three.get(at).unwrap_or(&0)));
        for at in 0..4 {
            let letter = LETTERS[(number >> (18 - 6 * at)) as usize & 63];
            text.push(if at > three.len() { '=' } else { char::from(letter) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (plain, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("a:b\u{ff}", "YTpiw78="),
        ] {
            assert_eq!(base64(plain.as_bytes()), expected);
        }
    }
}
