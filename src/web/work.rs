//! What takes long to answer: it is done here in steps, so that nobody else waits for it.

use super::http::Head;
use super::logs::{Search, Wanted};
use super::routes::{self, Name};
use crate::logs::scan::Query;
use crate::protocol::Detail;
use crate::sys::census::Census;
use crate::time::{Mono, Wall};

/// How many lines come where nobody says it: as an answer, and before those that are followed.
const LINES: u64 = 100;
const LINES_BEFORE: u64 = 20;

/// What is done.
pub enum Work {
    /// Logs are looked through.
    Logs(Box<Search>),
    /// The proportional memory of processes is looked at, one after the other.
    Shares {
        /// The processes.
        details: Vec<Detail>,
        /// The memory of the first of them.
        shares: Vec<Option<u64>>,
        /// All processes there are.
        census: Census,
    },
}

impl Work {
    /// Whether there is work to do for an answer.
    pub fn is_needed(name: Name, head: &Head) -> bool {
        match name {
            Name::Logs | Name::FollowLogs => true,
            Name::Describe => routes::pss(head) == Ok(true),
            _ => false,
        }
    }

    /// What is to be done for it, until the deadline. The error is one sentence: the request makes no sense.
    pub fn new(
        name: Name,
        head: &Head,
        details: Vec<Detail>,
        now: Wall,
        deadline: Mono,
    ) -> Result<Work, String> {
        if name == Name::Describe {
            return Ok(Work::Shares { details, shares: Vec::new(), census: Census::default() });
        }
        let is_followed = name == Name::FollowLogs;
        let mut wanted = routes::wanted(head, if is_followed { LINES_BEFORE } else { LINES }, now)?;
        if is_followed {
            wanted = Wanted { stream: None, query: Query::default(), ..wanted };
        }
        Ok(Work::Logs(Box::new(Search::new(&details, wanted, is_followed, now, deadline))))
    }

    /// Goes on for some milliseconds. True: it is done.
    pub fn step(&mut self, now: Mono) -> bool {
        match self {
            Work::Logs(search) => search.step(now),
            Work::Shares { details, shares, census } => {
                let Some(next) = details.get(shares.len()) else { return true };
                let pid = i32::try_from(next.view.pid).ok().filter(|pid| *pid > 0);
                shares.push(pid.and_then(|pid| census.proportional_memory(pid)));
                false
            }
        }
    }
}
