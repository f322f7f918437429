//! The two clocks. Only the event loop and the client's main read them, and hand the numbers down.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::time::{TimeSpec, TimeValLike};
use nix::sys::timerfd::{ClockId as TimerClock, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId, clock_gettime};

use crate::time::{Local, Millis, Mono, Wall};

/// Milliseconds of `CLOCK_MONOTONIC`, which never goes back and is common to all processes of this boot.
pub fn mono() -> Mono {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock");
    Mono(now.tv_sec() as u64 * 1_000 + now.tv_nsec() as u64 / 1_000_000)
}

/// Nanoseconds of `CLOCK_BOOTTIME`, by which the kernel tells when a process started. It allocates nothing.
pub fn boot_nanos() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_or(0, |now| now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

/// Has the kernel end this process (SIGPROF) once it has used so much more processor time; each call begins
/// anew. It wakes nobody.
pub fn die_after_busy(time: Millis) {
    let value = libc::timeval { tv_sec: (time.0 / 1_000) as libc::time_t, tv_usec: 0 };
    let once = libc::itimerval { it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 }, it_value: value };
    // SAFETY: setitimer reads one structure, a local.
    unsafe { libc::setitimer(libc::ITIMER_PROF, &once, std::ptr::null_mut()) };
}

/// Becomes readable at a time of day, and when the clock is set. Time that the machine sleeps counts.
#[derive(Debug)]
pub struct WallTimer(TimerFd);

impl WallTimer {
    /// One that is not armed.
    pub fn new() -> io::Result<WallTimer> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(WallTimer(TimerFd::new(TimerClock::CLOCK_REALTIME, flags)?))
    }

    /// Arms it anew, or not at all.
    pub fn arm(&self, at: Option<Wall>) -> io::Result<()> {
        let Some(Wall(at)) = at else { return Ok(self.0.unset()?) };
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        // No time at all would disarm it.
        let at = TimeSpec::milliseconds(i64::try_from(at.max(1)).unwrap_or(i64::MAX));
        match self.0.set(Expiration::OneShot(at), flags) {
            // It was set since it was armed, which is known now.
            Err(nix::errno::Errno::ECANCELED) => Ok(self.0.set(Expiration::OneShot(at), flags)?),
            result => Ok(result?),
        }
    }

    /// Takes what made it readable.
    pub fn drain(&self) {
        // Expired, or the clock was set (ECANCELED), or nothing: in any case the clock is looked at.
        let _ = self.0.wait();
    }
}

impl AsFd for WallTimer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Milliseconds since the Unix epoch; a clock set to before it reads as zero.
pub fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(since.as_millis() as u64)
}

/// What the clocks of this machine show, in the time zone of our environment.
pub fn local(at: Wall) -> Local {
    let seconds = (at.0 / 1_000) as libc::time_t;
    // SAFETY: every field of this structure is a number or a pointer, for which zero is valid.
    let mut found: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both are locals, and localtime_r keeps neither. Nobody changes the environment meanwhile: there is one
    // thread.
    unsafe { libc::localtime_r(&seconds, &mut found) };
    Local {
        year: i64::from(found.tm_year) + 1_900,
        month: found.tm_mon as u32 + 1,
        date: found.tm_mday as u32,
        hour: found.tm_hour as u32,
        minute: found.tm_min as u32,
        second: found.tm_sec as u32,
        weekday: found.tm_wday as u32,
        offset: found.tm_gmtoff as i64,
    }
}

/// How many seconds the clocks of this machine are ahead of UTC when they show so many from 1970 on. Of a time that
/// they show twice either may be meant.
pub fn ahead_when(shown: i64) -> i64 {
    let seconds = |shown: i64| u64::try_from(shown).unwrap_or(0).saturating_mul(1_000);
    // Twice: near a change the first guess may lie on its other side.
    let guess = local(Wall(seconds(shown))).offset;
    local(Wall(seconds(shown - guess))).offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_tells_how_far_ahead_the_clock_is() {
        for day in 0..800 {
            // Noon, when no clock is changed.
            let instant = 1_700_000_000 / 86_400 * 86_400 + 43_200 + day * 86_400;
            let offset = local(Wall(instant as u64 * 1_000)).offset;
            assert_eq!(ahead_when(instant + offset), offset);
        }
    }

    #[test]
    fn mono_runs_in_milliseconds() {
        let (before, timer) = (mono(), std::time::Instant::now());
        while timer.elapsed().as_millis() < 5 {}
        let passed = mono().since(before);
        assert!(passed >= Millis(4), "{passed:?}");
        assert!(u128::from(passed.0) <= timer.elapsed().as_millis() + 1, "{passed:?}");
    }

    #[test]
    fn a_wall_timer_fires_at_its_time_and_not_before() {
        let timer = WallTimer::new().unwrap();
        let is_readable = |timeout: u16| {
            let mut fds = [nix::poll::PollFd::new(timer.as_fd(), nix::poll::PollFlags::POLLIN)];
            nix::poll::poll(&mut fds, timeout).unwrap() == 1
        };
        timer.arm(Some(Wall(wall().0 + 3_600_000))).unwrap();
        assert!(!is_readable(0));
        timer.arm(Some(Wall(wall().0 + 20))).unwrap();
        assert!(is_readable(10_000));
        timer.drain();
        assert!(!is_readable(0));
        timer.arm(Some(Wall(0))).unwrap();
        assert!(is_readable(10_000), "what is past is due");
        timer.drain();
        timer.arm(Some(Wall(wall().0 + 20))).unwrap();
        timer.arm(None).unwrap();
        assert!(!is_readable(60));
    }

    #[test]
    fn local_time_is_utc_and_the_offset() {
        let now = wall();
        let local = local(now);
        let shifted = Wall((now.0 as i64 + local.offset * 1_000) as u64).to_string();
        let shown = format!(
            "{}-{:02}-{:02}T{:02}:{:02}:{:02}",
            local.year, local.month, local.date, local.hour, local.minute, local.second
        );
        assert_eq!(shown, shifted[..19]);
        // 1970-01-01 was a Thursday.
        let days = (now.0 as i64 / 1_000 + local.offset) / 86_400;
        assert_eq!(i64::from(local.weekday), (days + 4) % 7);
    }

    #[test]
    fn wall_is_in_this_century() {
        let year_2020 = 1_577_836_800_000;
        assert!((year_2020..year_2020 * 3).contains(&wall().0));
    }
}
