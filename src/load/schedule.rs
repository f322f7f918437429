//! A fixed rate: when the next request is due, and a timer that is exact enough to keep it. The poll's own timeout
//! counts whole milliseconds, which would show up as latency.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, TimerSetTimeFlags};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};

pub(super) struct Schedule {
    rate: f64,
    started: u64,
    timer: TimerFd,
}

impl Schedule {
    pub(super) fn new(rate: f64, registry: &Registry, token: Token) -> io::Result<Schedule> {
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        registry.register(&mut SourceFd(&timer.as_fd().as_raw_fd()), token, Interest::READABLE)?;
        Ok(Schedule { rate, started: 0, timer })
    }

    /// The intended start of the next request.
    pub(super) fn due(&self) -> Duration {
        Duration::from_secs_f64(self.started as f64 / self.rate)
    }

    pub(super) fn advance(&mut self) {
        self.started += 1;
    }

    /// How many requests should have started by now and have not.
    pub(super) fn overdue(&self, now: Duration) -> u64 {
        ((now.as_secs_f64() * self.rate) as u64).saturating_sub(self.started)
    }

    /// Has the poll return when the next request is due. Setting the timer anew also clears its last expiry.
    pub(super) fn arm(&self, now: Duration) -> io::Result<()> {
        // Zero would disarm it.
        let left = self.due().saturating_sub(now).max(Duration::from_nanos(1));
        Ok(self.timer.set(Expiration::OneShot(TimeSpec::from_duration(left)), TimerSetTimeFlags::empty())?)
    }
}
