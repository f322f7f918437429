//! What an event is about. A `Source` packs into a mio token, so there is no table of tokens; ids are
//! never reused, so an event that comes late finds no owner.

use mio::Token;

use super::notify::Reach;
use crate::supervisor::ChildId;
use crate::time::Mono;

/// What can become ready. The order is that in which one round visits them: a child's last words and
/// its readiness before its exit, exits before commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A child's stdout.
    Stdout(ChildId),
    /// A child's stderr.
    Stderr(ChildId),
    /// A child's Node channel.
    Channel(ChildId),
    /// What children say by sd_notify.
    Notify(Reach),
    /// The health check of a child.
    Check(ChildId),
    /// A child that is neither our own nor our keeper's.
    Orphan(ChildId),
    /// The keeper has something to tell.
    Wake,
    /// The daemon's own signals.
    Signals,
    /// The keeper is gone.
    Keeper,
    /// A listening socket whose connections the daemon accepts.
    Listener(u64),
    /// The control socket.
    Control,
    /// A client of the control socket.
    Client(u64),
    /// Files that apps watch.
    Files,
    /// The time of day that something is due at.
    Calendar,
    /// Our own stdout (1) or stderr (2).
    Sink(u64),
}

const KIND_SHIFT: u32 = 56;

impl Source {
    /// Whether a child holds the other end.
    pub fn is_of_child(self) -> bool {
        matches!(self, Source::Stdout(_) | Source::Stderr(_) | Source::Channel(_))
    }

    /// As a token: 8 bits of kind, 56 bits of id.
    pub fn token(self) -> Token {
        let (kind, id) = match self {
            Source::Stdout(child) => (0, child.0),
            Source::Stderr(child) => (1, child.0),
            Source::Channel(child) => (2, child.0),
            Source::Signals => (3, 0),
            Source::Listener(id) => (4, id),
            Source::Control => (5, 0),
            Source::Client(id) => (6, id),
            Source::Sink(fd) => (7, fd),
            Source::Orphan(child) => (8, child.0),
            Source::Wake => (9, 0),
            Source::Keeper => (10, 0),
            Source::Notify(reach) => (11, reach as u64),
            Source::Check(child) => (12, child.0),
            Source::Files => (13, 0),
            Source::Calendar => (14, 0),
        };
        debug_assert!(id < 1 << KIND_SHIFT);
        Token((kind << KIND_SHIFT | id) as usize)
    }

    /// The source of a token that [`Source::token`] made.
    pub fn from_token(token: Token) -> Option<Source> {
        let bits = token.0 as u64;
        let id = bits & ((1 << KIND_SHIFT) - 1);
        Some(match bits >> KIND_SHIFT {
            0 => Source::Stdout(ChildId(id)),
            1 => Source::Stderr(ChildId(id)),
            2 => Source::Channel(ChildId(id)),
            3 => Source::Signals,
            4 => Source::Listener(id),
            5 => Source::Control,
            6 => Source::Client(id),
            7 => Source::Sink(id),
            8 => Source::Orphan(ChildId(id)),
            9 => Source::Wake,
            10 => Source::Keeper,
            11 if id == 0 => Source::Notify(Reach::Own),
            11 => Source::Notify(Reach::All),
            12 => Source::Check(ChildId(id)),
            13 => Source::Files,
            14 => Source::Calendar,
            _ => return None,
        })
    }
}

/// What a visit to a source leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// Nothing more at present: the next event will tell.
    Drained,
    /// The budget is spent; come back next round.
    More,
    /// It is busy: let it gather until then, and look again.
    Rest(Mono),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_lead_back_to_their_source() {
        let child = ChildId(0x00ab_cdef_0123_4567);
        for source in [
            Source::Stdout(child),
            Source::Stderr(child),
            Source::Channel(child),
            Source::Signals,
            Source::Listener(7),
            Source::Control,
            Source::Client(8),
            Source::Sink(2),
            Source::Orphan(child),
            Source::Wake,
            Source::Keeper,
            Source::Notify(Reach::Own),
            Source::Notify(Reach::All),
            Source::Check(child),
            Source::Files,
            Source::Calendar,
        ] {
            assert_eq!(Source::from_token(source.token()), Some(source));
        }
        assert_eq!(Source::from_token(Token(usize::MAX)), None);
    }
}
