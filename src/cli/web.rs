//! `web`: the web front as an app. Where it listens is in its environment, the token in a file that only its
//! owner can read; the app itself is this program, which `main` hands on to the front.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::caller::Caller;
use super::home::Home;
use super::screen::Fail;
use super::{Run, Session, start};
use crate::app::declaration::Declared;
use crate::app::{Changes, Env, Text};
use crate::protocol::{Status, TOKEN_FILE, Token};
use crate::sys::{clock, secret};
use crate::time::{Millis, Wall};

/// pm2's port.
const PORT: u16 = 9615;
/// The hidden command that the app runs.
const APP: &str = "web-server";
/// What the app is called.
const NAME: &str = "pmx-web";

/// How the web front is to run.
#[derive(Debug, PartialEq)]
pub struct WebRun {
    /// The daemon's home.
    pub home: PathBuf,
    /// The daemon's socket.
    pub socket: PathBuf,
    /// The file with the token.
    pub token: PathBuf,
    /// Where to listen.
    pub address: SocketAddr,
    /// Names that it is called by, beside addresses and `localhost`.
    pub hosts: Vec<String>,
}

/// What is said about the web front.
#[derive(Debug, Default, PartialEq)]
pub struct Web {
    pub address: Option<String>,
    pub hosts: Vec<String>,
    pub new_token: bool,
    pub token_lifetime: Option<Millis>,
}

/// `pmx web [port]`.
pub fn web(session: &mut Session<'_, '_>, operands: &[String]) -> Result<(), Fail> {
    if cfg!(not(feature = "web")) {
        return Err(Fail::Sentence("web: this pmx was built without the feature web".to_string()));
    }
    let said = std::mem::take(&mut session.options.web);
    let port = operands.first().or(session.options.serve.port.as_ref());
    let address = address(session.caller, port.map(String::as_str), said.address.as_deref())?;
    if let Some(host) = said.hosts.iter().find(|host| host.is_empty() || host.contains([',', ':', '/', ' ']))
    {
        return Err(Fail::Sentence(format!("web: --allow-host takes a name without a port, got {host:?}")));
    }
    session.home.prepare()?;
    let name = session.options.changes.name.clone().unwrap_or_else(|| NAME.to_string());
    let views = session.views()?;
    let is_up = |status| matches!(status, Status::Online | Status::Launching);
    let running = views.iter().find(|view| view.name == name && is_up(view.status));
    if let (Some(view), false) = (running, said.new_token || session.options.force) {
        let advice = format!("pmx delete {name} first, or pmx web --new-token for another token");
        return Err(Fail::Sentence(format!("web: it runs already as id {} ({advice})", view.id)));
    }
    let runs = running.is_some() && !session.options.force;
    let path = session.home.path.join(TOKEN_FILE);
    let failed = |what: &str, error| {
        Fail::Sentence(format!("web: {what} {}: {}", path.display(), crate::sys::reason(&error)))
    };
    let fresh = match secret::read(&path) {
        Ok(text) if !said.new_token && Token::read(&text).is_some() => None,
        // What is there is not ours to write over, unless it was asked for.
        Err(error) if error.kind() != ErrorKind::NotFound && !said.new_token => {
            return Err(failed("read", error));
        }
        _ => Some(new_token(&path, said.token_lifetime).map_err(|error| failed("write", error))?),
    };
    if !runs {
        start(session, &name, address, &said.hosts)?;
    }
    let shown = match address.ip() {
        ip if ip.is_unspecified() => format!("localhost:{}", address.port()),
        _ => address.to_string(),
    };
    let text = match fresh {
        Some(Token { secret, .. }) => format!(
            "token: {secret}\n       (shown only now; it is in {})\ndashboard: http://{shown}/#token={secret}",
            path.display()
        ),
        None => format!("dashboard: http://{shown}/ (the token is in {})", path.display()),
    };
    match session.options.json {
        // The answer to the start is what stdout is for.
        true => session.screen.complain(&text),
        false => session.screen.line(&text)?,
    }
    Ok(())
}

fn start(
    session: &mut Session<'_, '_>,
    name: &str,
    address: SocketAddr,
    hosts: &[String],
) -> Result<(), Fail> {
    let mut env = Env::default();
    env.set("PMX_HOME", session.home.path.as_os_str());
    env.set("PMX_WEB_ADDRESS", address.ip().to_string());
    env.set("PMX_WEB_PORT", address.port().to_string());
    env.set("PMX_WEB_HOSTS", hosts.join(","));
    let program = std::env::current_exe()
        .map_err(|error| format!("web: find this program: {}", crate::sys::reason(&error)))?;
    let mut changes = Changes { args: Some(vec![Text::from(APP)]), ..session.options.changes.clone() };
    changes.name = Some(name.to_string());
    let declared = Declared {
        script: Text::from(&program),
        interpreter: Some("none".to_string()),
        fork: Some(true),
        env,
        changes,
        ..Declared::default()
    };
    start::one(session, &declared)
}

/// A token in its file, in the place of another one perhaps.
fn new_token(path: &std::path::Path, lifetime: Option<Millis>) -> std::io::Result<Token> {
    let until = lifetime.map(|lifetime| Wall(clock::wall().0.saturating_add(lifetime.0)));
    let token = Token::new(&secret::random()?, until);
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    secret::create(&fresh, &token.written())?;
    fs::rename(&fresh, path)?;
    Ok(token)
}

/// The app: where it is to serve.
pub fn app(caller: &Caller) -> Result<Run, String> {
    let home = Home::of(caller)?;
    let hosts =
        caller.var("PMX_WEB_HOSTS").map(|hosts| hosts.to_string_lossy().into_owned()).unwrap_or_default();
    let hosts = hosts.split(',').filter(|host| !host.is_empty()).map(String::from).collect();
    let (socket, token) = (home.socket(), home.path.join(TOKEN_FILE));
    Ok(Run::Web(WebRun { socket, token, address: address(caller, None, None)?, hosts, home: home.path }))
}

/// Where to listen: as said, else as pm2's variables say under our name or its own, else where pm2 listens, but for
/// this machine only.
fn address(caller: &Caller, port: Option<&str>, address: Option<&str>) -> Result<SocketAddr, String> {
    let var = |names: &[&str]| {
        let found = names.iter().find_map(|name| caller.var(name).filter(|value| !value.is_empty()));
        found.map(|value| value.to_string_lossy().into_owned())
    };
    let port = port
        .map(String::from)
        .or_else(|| var(&["PMX_WEB_PORT", "PMX_API_PORT", "PM2_WEB_PORT", "PM2_API_PORT"]));
    let address =
        address.map(String::from).or_else(|| var(&["PMX_WEB_ADDRESS", "PMX_API_IPADDR", "PM2_API_IPADDR"]));
    let port = match port {
        None => PORT,
        Some(text) => text.parse().map_err(|_| format!("web: expected a port, got {text:?}"))?,
    };
    let ip: IpAddr = match address.as_deref() {
        None | Some("localhost") => [127, 0, 0, 1].into(),
        Some(text) => {
            text.parse().map_err(|_| format!("web: expected an address to listen on, got {text:?}"))?
        }
    };
    Ok(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_it_listens() {
        for (vars, port, ip, expected) in [
            (&[][..], None, None, Ok("127.0.0.1:9615")),
            (&[("PM2_API_PORT", "1"), ("PMX_API_PORT", "2")], None, None, Ok("127.0.0.1:2")),
            (&[("PM2_WEB_PORT", "3")], None, None, Ok("127.0.0.1:3")),
            (&[("PM2_API_IPADDR", "0.0.0.0")], None, None, Ok("0.0.0.0:9615")),
            (&[("PMX_API_IPADDR", "0.0.0.0")], Some("4"), Some("::1"), Ok("[::1]:4")),
            (&[("PMX_WEB_PORT", "x")], None, None, Err("web: expected a port, got \"x\"")),
            (&[], Some("70000"), None, Err("web: expected a port, got \"70000\"")),
            (&[], None, Some("here"), Err("web: expected an address to listen on, got \"here\"")),
        ] {
            let mut caller = Caller::default();
            for (name, value) in vars {
                caller.env.set(*name, *value);
            }
            let found = address(&caller, port, ip).map(|address| address.to_string());
            assert_eq!(found, expected.map(String::from).map_err(String::from), "{vars:?}");
        }
    }
}
