//! The signals that the daemon itself receives, as one readable fd; and the names of all signals.

use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mio::{Interest, Registry, Token, event::Source};
use nix::sys::signal::SigSet;
use signal_hook::{SigId, low_level};

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
    /// SIGUSR1
    User1,
    /// SIGUSR2
    User2,
    /// SIGWINCH
    Window,
    /// Any other that is caught, which is only done to say that it came.
    Other(i32),
}

impl Signal {
    /// The one with this number.
    pub fn numbered(number: i32) -> Signal {
        ALL.iter().find(|(_, acted)| *acted == number).map_or(Signal::Other(number), |(signal, _)| *signal)
    }
}

/// Children first.
const ALL: [(Signal, i32); 8] = [
    (Signal::Child, libc::SIGCHLD),
    (Signal::Terminate, libc::SIGTERM),
    (Signal::Interrupt, libc::SIGINT),
    (Signal::Quit, libc::SIGQUIT),
    (Signal::Hangup, libc::SIGHUP),
    (Signal::User1, libc::SIGUSR1),
    (Signal::User2, libc::SIGUSR2),
    (Signal::Window, libc::SIGWINCH),
];

/// What nobody else may want to end a process by; those of a crash, SIGPROF (of a loop without end, see
/// [`super::clock::die_after_busy`]), SIGPIPE (ignored, as ever in Rust) and those that libc uses itself stay
/// as they are.
const OTHERS: [i32; 12] = [
    libc::SIGALRM,
    libc::SIGSTKFLT,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGURG,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGVTALRM,
    libc::SIGIO,
    libc::SIGPWR,
];

/// The signals seen by one [`Signals::drain`]. A signal that came several times is in it once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set {
    seen: u64,
}

impl Set {
    /// Whether `signal` came.
    pub fn contains(self, signal: Signal) -> bool {
        self.iter().any(|seen| seen == signal)
    }

    /// Those that came, children first.
    pub fn iter(self) -> impl Iterator<Item = Signal> {
        let is_acted = |number: &i32| ALL.iter().any(|(_, acted)| acted == number);
        let others = (1..=64).filter(move |number| !is_acted(number)).map(|n| (Signal::Other(n), n));
        let all = ALL.into_iter().chain(others);
        all.filter(move |(_, number)| self.seen & bit(*number) != 0).map(|(signal, _)| signal)
    }
}

fn bit(number: i32) -> u64 {
    1 << (number - 1)
}

/// The daemon's signals, caught from `install` to drop. A mio source: readable when there is something
/// to [`drain`](Signals::drain).
#[derive(Debug)]
pub struct Signals {
    wake: mio::net::UnixStream,
    bell: Arc<UnixStream>,
    seen: Arc<AtomicU64>,
    ids: Vec<SigId>,
}

impl Signals {
    /// Catches the signals that are acted on, and with `others` also those that would only end a process,
    /// for the first process of a container, which is told of them. Then unblocks every signal in this
    /// thread: what came while they were blocked is seen now.
    pub fn install(others: bool) -> io::Result<Signals> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let wake = mio::net::UnixStream::from_std(ours);
        let mut signals = Signals { wake, bell: Arc::new(theirs), seen: Arc::default(), ids: Vec::new() };
        for (_, number) in ALL {
            signals.catch(number)?;
        }
        if others {
            for number in OTHERS.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
                signals.catch(number)?;
            }
            for number in [libc::SIGSEGV, libc::SIGBUS] {
                let_no_other_in(number)?;
            }
        }
        unblock();
        Ok(signals)
    }

    fn catch(&mut self, number: i32) -> io::Result<()> {
        let (seen, bell) = (Arc::clone(&self.seen), Arc::clone(&self.bell));
        // In this order: when we wake up, the flag is there.
        let action = move || {
            seen.fetch_or(bit(number), Ordering::SeqCst);
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // SAFETY: one byte of a constant is read; `bell` keeps the socket open. A full socket wakes
            // us just as well. send is async-signal-safe.
            unsafe { libc::send(bell.as_raw_fd(), b"!".as_ptr().cast(), 1, flags) };
        };
        // SAFETY: the action stores into an atomic and calls send: it neither allocates nor locks, and
        // signal-hook keeps errno.
        self.ids.push(unsafe { low_level::register(number, action) }?);
        Ok(())
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
        Set { seen: self.seen.swap(0, Ordering::SeqCst) }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.ids.drain(..) {
            low_level::unregister(id);
        }
    }
}

/// Has the kernel hold back all other signals while the handler of this one runs. Those that Rust has for a
/// stack overflow run on a small stack of their own, and who sends us every signal there is at once would have
/// all other handlers nested on top.
fn let_no_other_in(number: i32) -> io::Result<()> {
    // SAFETY: sigaction is integers, a pointer and a set, for all of which zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes the present action to `action`, of which then only the mask changes: the
    // handler stays Rust's.
    let done = unsafe {
        libc::sigaction(number, std::ptr::null(), &mut action) == 0
            && libc::sigfillset(&mut action.sa_mask) == 0
            && libc::sigaction(number, &action, std::ptr::null_mut()) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Unblocks every signal in this thread: a parent may have left us with some blocked, and so has
/// [`block_if_first`].
pub fn unblock() {
    if let Err(error) = SigSet::empty().thread_set_mask() {
        log::error!("unblock signals: {error}");
    }
}

/// The first process of a pid namespace has no default actions: a signal that comes before its handler is
/// dropped by the kernel, unless it is blocked. So they are blocked before `main`, and before Rust's own
/// set-up, and stay so until [`Signals::install`] or [`unblock`].
extern "C" fn block_if_first() {
    let all = u64::MAX;
    // SAFETY: getpid touches no memory; the kernel reads the 8 bytes of `all`. Bare calls: libc may not
    // be ready for more this early.
    unsafe {
        if libc::syscall(libc::SYS_getpid) == 1 {
            let none = std::ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &all, none, 8usize);
        }
    }
}

// SAFETY: the loader calls what is listed here before main; it is a function without arguments (those
// that glibc passes are not looked at) that needs nothing to be initialised.
#[unsafe(link_section = ".init_array")]
#[used]
static BLOCK_IF_FIRST: extern "C" fn() = block_if_first;

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
            let mut signals = Signals::install(false).unwrap();
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
            drop(signals);
            signals = Signals::install(true).unwrap();
            for number in OTHERS.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX()) {
                raise(number);
                assert_eq!(signals.drain().iter().collect::<Vec<_>>(), [Signal::Other(number)]);
            }
        });
    }

    #[test]
    fn sigchld_tells_of_children_even_if_it_was_ignored() {
        alone("sys::signals::tests::sigchld_tells_of_children_even_if_it_was_ignored", || {
            // SAFETY: nothing else runs in this process.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
            let mut signals = Signals::install(false).unwrap();
            let child = shell("exit 5");
            wait_until("SIGCHLD", || signals.drain().contains(Signal::Child).then_some(()));
            let reaped = crate::sys::reap::reap().unwrap();
            assert_eq!((reaped.pid, reaped.status.number()), (child.pid, 5));
        });
    }

    #[test]
    fn a_flood_of_signals_neither_blocks_nor_is_lost() {
        alone("sys::signals::tests::a_flood_of_signals_neither_blocks_nor_is_lost", || {
            let mut signals = Signals::install(false).unwrap();
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
    fn n02_all_signals_at_once_do_not_overflow_anything() {
        alone("sys::signals::tests::n02_all_signals_at_once_do_not_overflow_anything", || {
            let mut signals = Signals::install(true).unwrap();
            SigSet::all().thread_block().unwrap();
            let others = OTHERS.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX());
            let all = ALL.into_iter().map(|(_, number)| number).chain(others);
            // One that stops a process takes it back.
            let all: Vec<i32> = all.filter(|number| *number != libc::SIGCONT).collect();
            for &number in all.iter().chain(&[libc::SIGBUS, libc::SIGSEGV]) {
                raise(number);
            }
            unblock();
            assert_eq!(signals.drain().iter().count(), all.len());
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
