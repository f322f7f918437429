//! What an app is held to, and whoever runs as one, in the kernel's terms.

use super::children::Children;
use crate::app::limits::Resource;
use crate::app::{App, Limits};
use crate::sys::spawn::{Bounds, Credentials, Spawn, UNLIMITED};

/// The limits of each process.
pub fn limits(limits: &Limits) -> Vec<(u32, [u64; 2])> {
    let one = |limit: Option<u64>| limit.unwrap_or(UNLIMITED);
    limits.each.iter().map(|(resource, [soft, hard])| (number(*resource), [one(*soft), one(*hard)])).collect()
}

/// A process that runs as this app, as far as that does not depend on what it executes. `limits` are those of
/// each process.
pub fn spawn<'a>(app: &'a App, limits: &'a [(u32, [u64; 2])], children: &Children) -> Spawn<'a> {
    Spawn {
        umask: app.umask,
        user: app.user.as_ref().map(|u| Credentials { uid: u.uid, gid: u.gid, groups: &u.groups }),
        nofile: children.nofile,
        oom_score_adj: children.oom_score_adj,
        bounds: bounds(app, limits),
        ..Spawn::default()
    }
}

fn bounds<'a>(app: &App, limits: &'a [(u32, [u64; 2])]) -> Bounds<'a> {
    Bounds {
        limits,
        nice: app.limits.nice,
        oom_score_adj: app.limits.oom_score_adj,
        // Who becomes somebody else is not to become root again by way of a setuid program.
        no_new_privs: app.privileges.no_new_privs.unwrap_or(app.user.is_some()),
        capabilities: app.privileges.mask(),
    }
}

fn number(resource: Resource) -> u32 {
    // The C libraries differ in the type.
    #[allow(clippy::unnecessary_cast)]
    match resource {
        Resource::As => libc::RLIMIT_AS as u32,
        Resource::Core => libc::RLIMIT_CORE as u32,
        Resource::CpuTime => libc::RLIMIT_CPU as u32,
        Resource::Data => libc::RLIMIT_DATA as u32,
        Resource::Fsize => libc::RLIMIT_FSIZE as u32,
        Resource::Memlock => libc::RLIMIT_MEMLOCK as u32,
        Resource::Msgqueue => libc::RLIMIT_MSGQUEUE as u32,
        Resource::Nofile => libc::RLIMIT_NOFILE as u32,
        Resource::Nproc => libc::RLIMIT_NPROC as u32,
        Resource::Rtprio => libc::RLIMIT_RTPRIO as u32,
        Resource::Sigpending => libc::RLIMIT_SIGPENDING as u32,
        Resource::Stack => libc::RLIMIT_STACK as u32,
    }
}
