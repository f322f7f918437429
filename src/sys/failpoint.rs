//! Places at which a test makes the daemon die, to see what the next one makes of it. Only in builds with debug
//! assertions: `PMX_FAILPOINT=<name>[:<n>[:<generation>]]` aborts a daemon when it comes by for the n-th time, the
//! first one of a keeper, or as many later; with `*` for a name, at the n-th place of all (`*:0` has them logged).
//! `PMX_PANIC_AT=<name>` makes every daemon panic there, `PMX_STOP_AT=<name>` makes it stop as by SIGSTOP.

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    struct Armed {
        name: String,
        at: u32,
        generation: u32,
    }

    static ABORT: OnceLock<Option<Armed>> = OnceLock::new();
    static SEEN: AtomicU32 = AtomicU32::new(0);
    pub static GENERATION: AtomicU32 = AtomicU32::new(0);

    fn parse(text: String) -> Armed {
        let mut parts = text.splitn(3, ':');
        let name = parts.next().unwrap_or_default().to_string();
        let mut number = |usual| parts.next().and_then(|text| text.parse().ok()).unwrap_or(usual);
        Armed { name, at: number(1), generation: number(0) }
    }

    pub fn reach(name: &str) {
        static STOP: OnceLock<Option<String>> = OnceLock::new();
        if STOP.get_or_init(|| std::env::var("PMX_STOP_AT").ok()).as_deref() == Some(name) {
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP);
        }
        let armed = ABORT.get_or_init(|| std::env::var("PMX_FAILPOINT").ok().map(parse));
        let generation = GENERATION.load(SeqCst);
        let is_meant =
            |armed: &&Armed| armed.generation == generation && (armed.name == name || armed.name == "*");
        let Some(armed) = armed.as_ref().filter(is_meant) else { return };
        let seen = SEEN.fetch_add(1, SeqCst) + 1;
        if seen == armed.at {
            log::error!("failpoint {name}: aborting");
            std::process::abort();
        }
        if armed.at == 0 {
            log::info!("failpoint {seen}: {name}");
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

/// Which daemon of its keeper this is, from 0.
#[inline]
pub fn born(generation: u32) {
    #[cfg(debug_assertions)]
    armed::GENERATION.store(generation, std::sync::atomic::Ordering::SeqCst);
    let _ = generation;
}
