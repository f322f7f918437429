//! What pm2's own JavaScript client speaks: frames on two unix sockets, calls and their answers on the one,
//! events on the other. Bytes and values only; who serves it is `cli::front`, a client of the daemon.

mod amp;
mod call;
mod element;
mod restart;

pub use amp::{Arg, FRAME_LIMIT, Fault, Frames, frame};
pub use call::{Call, Plan, Reply, calls, duplicate, error, event, plan, reply};
pub use element::{element, pid_file};

/// The version that clients are told: of the pm2 whose client was measured against this.
pub const VERSION: &str = "7.0.4";
/// Where calls are answered, below the home.
pub const CALLS: &str = "rpc.sock";
/// Where events come from.
pub const EVENTS: &str = "pub.sock";
