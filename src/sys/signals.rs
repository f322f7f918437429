//! The signals that the daemon itself receives, as one readable fd; and the names of all signals.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::{Interest, Registry, Token, event::Source};
use signal_hook::{SigId, flag, low_level};

/// A signal the daemon acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGCHLD: some children, one or many, have ended.
    Child,
    /// SIGTERM
    Terminate,
    /// SIGINT
    Interrupt,
    /// SIGQUIT
    Quit,
    /// SIGHUP
    Hangup,
    /// SIGUSR2
    User2,
}

const ALL: [(Signal, i32); 6] = [
    (Signal::Child, libc::SIGCHLD),
    (Signal::Terminate, libc::SIGTERM),
    (Signal::Interrupt, libc::SIGINT),
    (Signal::Quit, libc::SIGQUIT),
    (Signal::Hangup, libc::SIGHUP),
    (Signal::User2, libc::SIGUSR2),
];

/// The signals seen by one [`Signals::drain`]. A signal that came several times is in it once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set {
    seen: [bool; ALL.len()],
}

impl Set {
    /// Whether `signal` came.
    pub fn contains(self, signal: Signal) -> bool {
        self.iter().any(|seen| seen == signal)
    }

    /// Those that came, children first.
    pub fn iter(self) -> impl Iterator<Item = Signal> {
        ALL.into_iter().zip(self.seen).filter(|(_, seen)| *seen).map(|((signal, _), _)| signal)
    }
}

/// The daemon's signals, caught from `install` to drop. A mio source: readable when there is something
/// to [`drain`](Signals::drain).
#[derive(Debug)]
pub struct Signals {
    wake: mio::net::UnixStream,
    seen: [Arc<AtomicBool>; ALL.len()],
    ids: Vec<SigId>,
}

impl Signals {
    /// Catches the signals, and unblocks every signal in this thread: a parent may have left us with some
    /// blocked or ignored.
    pub fn install() -> io::Result<Signals> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let wake = mio::net::UnixStream::from_std(ours);
        let mut signals = Signals { wake, seen: Default::default(), ids: Vec::new() };
        for ((_, number), seen) in ALL.into_iter().zip(&signals.seen) {
            // In this order: when we wake up, the flag is there.
            signals.ids.push(flag::register(number, Arc::clone(seen))?);
            signals.ids.push(low_level::pipe::register(number, theirs.try_clone()?)?);
        }
        nix::sys::signal::SigSet::empty().thread_set_mask()?;
        Ok(signals)
    }

    /// All that came since the last call. Afterwards the source is unreadable until another comes.
    pub fn drain(&mut self) -> Set {
        let mut buffer = [0; 64];
        // First the bytes, then the flags: what comes in between is seen now or wakes us again.
        loop {
            match self.wake.read(&mut buffer) {
                Ok(count) if count > 0 => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        Set { seen: self.seen.each_ref().map(|flag| flag.swap(false, Ordering::SeqCst)) }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.ids.drain(..) {
            low_level::unregister(id);
        }
    }
}

impl Source for Signals {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.wake.register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.wake.reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.wake.deregister(registry)
    }
}

const NAMES: [(&str, i32); 31] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// The number of a signal given as name or number, in any case: `SIGUSR2`, `usr2`, `12`, `SIGRTMIN+3`,
/// `RTMAX-1`. `None` if there is no such signal.
pub fn parse(text: &str) -> Option<i32> {
    let text = text.trim().to_ascii_uppercase();
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return number(&text).filter(|n| (1..=libc::SIGRTMAX()).contains(n));
    }
    let name = text.strip_prefix("SIG").unwrap_or(&text);
    let realtime = if let Some(offset) = name.strip_prefix("RTMIN") {
        offset_of(offset, '+').map(|n| libc::SIGRTMIN() + n)
    } else if let Some(offset) = name.strip_prefix("RTMAX") {
        offset_of(offset, '-').map(|n| libc::SIGRTMAX() - n)
    } else {
        return NAMES.iter().find(|(known, _)| *known == name).map(|&(_, number)| number);
    };
    realtime.filter(|n| (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(n))
}

/// `""` is 0, `"+3"` is 3.
fn offset_of(text: &str, sign: char) -> Option<i32> {
    if text.is_empty() { Some(0) } else { number(text.strip_prefix(sign)?) }
}

/// Digits only, and few enough that no sum with it overflows.
fn number(digits: &str) -> Option<i32> {
    let plain = (1..=3).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// The name of a signal: `SIGUSR2`, `SIGRTMIN+3`; just the number if it has none.
pub fn name(number: i32) -> String {
    if let Some((name, _)) = NAMES.iter().find(|&&(_, known)| known == number) {
        return format!("SIG{name}");
    }
    match number - libc::SIGRTMIN() {
        0 => "SIGRTMIN".to_string(),
        n if n > 0 && number <= libc::SIGRTMAX() => format!("SIGRTMIN+{n}"),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;
    use crate::sys::testing::{alone, shell, wait_until};

    /// To this thread, so that it has arrived when this returns (unless it is blocked).
    fn raise(signal: i32) {
        low_level::raise(signal).unwrap();
    }

    #[test]
    fn each_signal_is_seen_once_and_wakes_the_loop() {
        alone("sys::signals::tests::each_signal_is_seen_once_and_wakes_the_loop", || {
            // P12: as a careless parent may have left us.
            // SAFETY: nothing else runs in this process.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
            nix::sys::signal::SigSet::all().thread_set_mask().unwrap();
            let mut signals = Signals::install().unwrap();
            let mut poll = Poll::new().unwrap();
            let mut events = Events::with_capacity(4);
            poll.registry().register(&mut signals, Token(7), Interest::READABLE).unwrap();
            assert_eq!(signals.drain(), Set::default());
            for (signal, number) in ALL {
                raise(number);
                raise(number);
                poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
                assert!(events.iter().any(|event| event.token() == Token(7) && event.is_readable()));
                let seen = signals.drain();
                assert!(seen.contains(signal) && seen.iter().count() == 1, "{seen:?}");
                assert_eq!(signals.drain(), Set::default());
            }
            raise(libc::SIGHUP);
            raise(libc::SIGTERM);
            assert_eq!(signals.drain().iter().collect::<Vec<_>>(), [Signal::Terminate, Signal::Hangup]);
            poll.registry().deregister(&mut signals).unwrap();
        });
    }

    #[test]
    fn sigchld_tells_of_children_even_if_it_was_ignored() {
        alone("sys::signals::tests::sigchld_tells_of_children_even_if_it_was_ignored", || {
            // SAFETY: nothing else runs in this process.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
            let mut signals = Signals::install().unwrap();
            let child = shell("exit 5");
            wait_until("SIGCHLD", || signals.drain().contains(Signal::Child).then_some(()));
            let reaped = crate::sys::reap::reap().unwrap();
            assert_eq!((reaped.pid, reaped.status.number()), (child.pid, 5));
        });
    }

    #[test]
    fn a_flood_of_signals_neither_blocks_nor_is_lost() {
        alone("sys::signals::tests::a_flood_of_signals_neither_blocks_nor_is_lost", || {
            let mut signals = Signals::install().unwrap();
            // Many more than the socket holds.
            for _ in 0..5_000 {
                raise(libc::SIGHUP);
            }
            raise(libc::SIGUSR2);
            let seen = signals.drain();
            assert!(seen.contains(Signal::Hangup) && seen.contains(Signal::User2));
            assert_eq!(signals.drain(), Set::default());
        });
    }

    #[test]
    fn names_and_numbers_convert_both_ways() {
        for number in (1..=31).chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
            let name = name(number);
            assert!(name.starts_with("SIG"), "{name}");
            assert_eq!(parse(&name), Some(number));
            assert_eq!(parse(&name[3..].to_lowercase()), Some(number));
            assert_eq!(parse(&number.to_string()), Some(number));
            if let Ok(known) = nix::sys::signal::Signal::try_from(number) {
                assert_eq!(name, known.as_str());
            }
        }
        for (text, number) in [
            ("SIGUSR2", 12),
            ("usr2", 12),
            ("12", 12),
            (" sigTerm ", 15),
            ("SIGRTMIN", libc::SIGRTMIN()),
            ("SIGRTMIN+3", libc::SIGRTMIN() + 3),
            ("rtmax-1", libc::SIGRTMAX() - 1),
            ("RTMAX", 64),
        ] {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for text in [
            "",
            "SIG",
            "0",
            "65",
            "-9",
            "+9",
            "SIGNONE",
            "RTMIN+99",
            "RTMIN-1",
            "RTMIN+",
            "RTMAX+1",
            "RTMIN+-1",
            "99999999999",
            "9x",
            "SIGSIGINT",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(name(libc::SIGRTMIN() + 3), "SIGRTMIN+3");
        assert_eq!((&name(0)[..], &name(32)[..], &name(99)[..], &name(-1)[..]), ("0", "32", "99", "-1"));
    }
}
