//! The web front: an API, metrics and a dashboard over HTTP. A client of the daemon like the command line, in a
//! process of its own, so that nothing which reads from a network is the parent of anybody's app.

mod connection;
mod control;
mod gate;
mod host;
mod http;
mod logs;
mod metrics;
mod openapi;
mod past;
mod reply;
mod routes;
mod server;
mod work;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where and for whom.
#[derive(Debug)]
pub struct Options {
    /// The daemon's home.
    pub home: PathBuf,
    /// The daemon's socket.
    pub socket: PathBuf,
    /// The file with the token.
    pub token: PathBuf,
    /// Where to listen.
    pub address: SocketAddr,
    /// Names that we are called by, beside addresses and `localhost`.
    pub hosts: Vec<String>,
}

/// Serves until it is ended. It comes back only if it cannot.
pub fn main(options: Options) -> Result<Infallible, String> {
    let address = options.address;
    server::serve(options).map_err(|error| format!("web on {address}: {}", crate::sys::reason(&error)))
}
