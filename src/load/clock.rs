//! The load's own time: it runs only while the load is driven, so that what the caller does between two runs
//! neither counts as latency nor lets requests time out.

use std::time::{Duration, Instant};

pub(super) struct Clock {
    start: Instant,
    stood_still: Duration,
    stopped_at: Option<Duration>,
}

impl Clock {
    /// Stopped at zero.
    pub(super) fn new() -> Clock {
        Clock { start: Instant::now(), stood_still: Duration::ZERO, stopped_at: Some(Duration::ZERO) }
    }

    pub(super) fn now(&self) -> Duration {
        self.stopped_at.unwrap_or_else(|| self.start.elapsed().saturating_sub(self.stood_still))
    }

    pub(super) fn go(&mut self) {
        if let Some(stopped_at) = self.stopped_at.take() {
            self.stood_still = self.start.elapsed().saturating_sub(stopped_at);
        }
    }

    pub(super) fn stop(&mut self) {
        self.stopped_at = Some(self.now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::sleep;

    #[test]
    fn time_stands_still_between_runs() {
        let mut clock = Clock::new();
        let pause = Duration::from_millis(30);
        sleep(pause);
        assert_eq!(clock.now(), Duration::ZERO);
        clock.go();
        sleep(pause);
        clock.stop();
        let first = clock.now();
        assert!(first >= pause && first < clock.start.elapsed() - pause);
        sleep(pause);
        assert_eq!(clock.now(), first);
        clock.go();
        assert!(clock.now() >= first && clock.now() < clock.start.elapsed() - pause * 2);
    }
}
