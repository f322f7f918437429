//! What was seen in one window of load: answers, failures by kind, latencies, and who answered.

use std::fmt;
use std::time::Duration;

use super::histogram::Histogram;

/// Different values of the tally header that are counted apart; a server that makes up a new one per answer
/// must not grow us.
const MAX_TALLY: usize = 256;

/// The one way in which a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nobody listened (for a unix socket also: no such file).
    ConnectRefused,
    /// No connection within the timeout.
    ConnectTimeout,
    /// The connection could not be made for another reason, ours included (no ports, no fds).
    ConnectOther,
    /// The connection was reset, or broke while the request was written.
    Reset,
    /// The end of the stream came before the end of the response.
    ClosedEarly,
    /// No complete response within the timeout.
    RequestTimeout,
    /// A complete response with a status of 500 to 599.
    ServerError,
    /// A complete response that is neither 2xx, 3xx nor 5xx.
    OtherStatus,
    /// Not HTTP, or more bytes than announced.
    Malformed,
}

impl Failure {
    /// All kinds, in the order in which they are shown.
    pub const ALL: [Failure; 9] = [
        Failure::ConnectRefused,
        Failure::ConnectTimeout,
        Failure::ConnectOther,
        Failure::Reset,
        Failure::ClosedEarly,
        Failure::RequestTimeout,
        Failure::ServerError,
        Failure::OtherStatus,
        Failure::Malformed,
    ];

    /// The name people and machines see.
    pub fn name(self) -> &'static str {
        match self {
            Failure::ConnectRefused => "connect_refused",
            Failure::ConnectTimeout => "connect_timeout",
            Failure::ConnectOther => "connect_other",
            Failure::Reset => "reset",
            Failure::ClosedEarly => "closed_early",
            Failure::RequestTimeout => "request_timeout",
            Failure::ServerError => "5xx",
            Failure::OtherStatus => "other_status",
            Failure::Malformed => "malformed",
        }
    }
}

/// Failed requests, each counted once under its kind. Displays as `3 reset, 1 closed_early` or `0`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures([u64; Failure::ALL.len()]);

impl Failures {
    /// How many failed in this way.
    pub fn of(&self, kind: Failure) -> u64 {
        self.0[kind as usize]
    }

    /// How many failed.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds everything `other` has counted.
    pub fn merge(&mut self, other: &Failures) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for kind in Failure::ALL.into_iter().filter(|kind| self.of(*kind) > 0) {
            write!(f, "{separator}{} {}", self.of(kind), kind.name())?;
            separator = ", ";
        }
        if separator.is_empty() { f.write_str("0") } else { Ok(()) }
    }
}

/// One window of load, from one `take_report` to the next. A request belongs to the window in which it ends.
#[derive(Clone, Default)]
pub struct Report {
    /// The time spent driving the load; pauses between runs do not count.
    pub elapsed: Duration,
    /// Complete responses of 2xx or 3xx.
    pub ok: u64,
    /// Everything else.
    pub failures: Failures,
    /// Bytes received, heads included.
    pub bytes: u64,
    /// Connections opened, or begun.
    pub connections: u64,
    /// Kept-alive connections that were found closed before a request was written to them.
    pub reconnects: u64,
    /// At a fixed rate: requests whose time had come by the end of the window, and which had to wait for a free client.
    pub overdue: u64,
    /// Latencies of the `ok` requests, from the (intended) start to the last byte.
    pub latency: Histogram,
    /// `ok` requests by the value of the tally header, in order of appearance.
    pub tally: Vec<(String, u64)>,
    /// `ok` requests without that header, or beyond the number of values that are counted apart.
    pub untallied: u64,
}

impl Report {
    /// Requests that ended in this window.
    pub fn requests(&self) -> u64 {
        self.ok + self.failures.total()
    }

    /// Good answers per second.
    pub fn rate(&self) -> f64 {
        self.ok as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Adds another window to this one.
    pub fn merge(&mut self, other: &Report) {
        self.elapsed += other.elapsed;
        self.ok += other.ok;
        self.failures.merge(&other.failures);
        self.bytes += other.bytes;
        self.connections += other.connections;
        self.reconnects += other.reconnects;
        self.overdue = other.overdue;
        self.latency.merge(&other.latency);
        self.untallied += other.untallied;
        for (value, count) in &other.tally {
            self.count_tag(value.as_bytes(), *count);
        }
    }

    pub(super) fn fail(&mut self, kind: Failure) {
        self.failures.0[kind as usize] += 1;
    }

    /// Counts a complete response.
    pub(super) fn answer(&mut self, status: u16, latency: Duration, tag: &[u8]) {
        match status {
            200..=399 => {
                self.ok += 1;
                self.latency.record(latency);
                self.count_tag(tag, 1);
            }
            500..=599 => self.fail(Failure::ServerError),
            _ => self.fail(Failure::OtherStatus),
        }
    }

    fn count_tag(&mut self, tag: &[u8], count: u64) {
        if tag.is_empty() {
            self.untallied += count;
        } else if let Some(known) = self.tally.iter_mut().find(|(value, _)| value.as_bytes() == tag) {
            known.1 += count;
        } else if self.tally.len() < MAX_TALLY
            && let Ok(value) = str::from_utf8(tag)
        {
            self.tally.push((value.to_owned(), count));
        } else {
            self.untallied += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_fall_into_their_kinds() {
        let mut report = Report::default();
        for status in [200, 204, 301, 399, 101, 400, 404, 499, 500, 503, 599, 600, 999] {
            report.answer(status, Duration::from_millis(1), b"");
        }
        assert_eq!((report.ok, report.requests()), (4, 13));
        assert_eq!(report.failures.of(Failure::ServerError), 3);
        assert_eq!(report.failures.of(Failure::OtherStatus), 6);
        assert_eq!(report.failures.to_string(), "3 5xx, 6 other_status");
        assert_eq!(report.latency.count(), 4, "failures have no latency");
        assert_eq!(Failures::default().to_string(), "0");
    }

    #[test]
    fn kinds_are_counted_under_their_own_names() {
        for kind in Failure::ALL {
            let mut report = Report::default();
            report.fail(kind);
            assert_eq!(report.failures.to_string(), format!("1 {}", kind.name()));
        }
        let names: std::collections::BTreeSet<&str> = Failure::ALL.map(Failure::name).into();
        assert_eq!(names.len(), Failure::ALL.len());
    }

    #[test]
    fn merged_windows_are_one_window() {
        let mut first = Report { elapsed: Duration::from_secs(1), ..Report::default() };
        first.answer(200, Duration::from_millis(1), b"a");
        first.answer(200, Duration::from_millis(1), b"");
        let mut second = Report { elapsed: Duration::from_secs(1), reconnects: 2, ..Report::default() };
        second.answer(200, Duration::from_millis(3), b"b");
        second.answer(200, Duration::from_millis(3), b"a");
        second.answer(200, Duration::from_millis(3), b"b");
        second.fail(Failure::Reset);
        first.merge(&second);
        assert_eq!(first.tally, [("a".to_owned(), 2), ("b".to_owned(), 2)]);
        assert_eq!((first.ok, first.untallied, first.reconnects, first.failures.total()), (5, 1, 2, 1));
        assert_eq!(first.rate(), 2.5);
        assert_eq!(first.latency.max(), Duration::from_millis(3));
    }

    #[test]
    fn made_up_tags_do_not_grow_the_tally() {
        let mut report = Report::default();
        for n in 0..MAX_TALLY + 10 {
            report.answer(200, Duration::ZERO, format!("worker-{n}").as_bytes());
        }
        report.answer(200, Duration::ZERO, b"\xff");
        assert_eq!((report.tally.len(), report.untallied), (MAX_TALLY, 11));
    }
}
