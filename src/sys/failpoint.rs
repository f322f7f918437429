//! Places at which a test makes the daemon die, to see what the next one makes of it. Only in builds with debug
//! assertions: `PMX_FAILPOINT=<name>[:<n>]` aborts the first daemon of a keeper when it comes by for the
//! n-th time, and `*:<n>` at the n-th place of all; `PMX_PANIC_AT=<name>` makes every daemon panic there.

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

    struct Armed {
        name: String,
        at: u32,
    }

    static ABORT: OnceLock<Option<Armed>> = OnceLock::new();
    static SEEN: AtomicU32 = AtomicU32::new(0);
    pub static DISARMED: AtomicBool = AtomicBool::new(false);

    fn parse(text: String) -> Armed {
        match text.split_once(':') {
            Some((name, at)) => Armed { name: name.to_string(), at: at.parse().unwrap_or(1) },
            None => Armed { name: text, at: 1 },
        }
    }

    pub fn reach(name: &str) {
        let armed = ABORT.get_or_init(|| std::env::var("PMX_FAILPOINT").ok().map(parse));
        let Some(armed) = armed.as_ref().filter(|armed| armed.name == name || armed.name == "*") else {
            return;
        };
        if !DISARMED.load(SeqCst) && SEEN.fetch_add(1, SeqCst) + 1 == armed.at {
            log::error!("failpoint {name}: aborting");
            std::process::abort();
        }
    }

    pub fn panic_at(name: &str) {
        if std::env::var("PMX_PANIC_AT").is_ok_and(|wanted| wanted == name) {
            panic!("failpoint {name}");
        }
    }
}

/// The n-th time, the process aborts here.
#[inline]
pub fn reach(name: &str) {
    #[cfg(debug_assertions)]
    armed::reach(name);
    let _ = name;
}

/// The process panics here.
#[inline]
pub fn panic_at(name: &str) {
    #[cfg(debug_assertions)]
    armed::panic_at(name);
    let _ = name;
}

/// The process panics here if it is about `who`.
#[inline]
pub fn panic_on(name: &str, who: &str) {
    #[cfg(debug_assertions)]
    armed::panic_at(&format!("{name}-{who}"));
    let _ = (name, who);
}

/// From now on nothing happens at [`reach`]: this is not the first daemon.
#[inline]
pub fn disarm() {
    #[cfg(debug_assertions)]
    armed::DISARMED.store(true, std::sync::atomic::Ordering::SeqCst);
}
