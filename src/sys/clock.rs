//! The two clocks. Only the event loop and the client's main read them, and hand the numbers down.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use crate::time::{Millis, Mono, Wall};

/// Milliseconds of `CLOCK_MONOTONIC`, which never goes back and is common to all processes of this boot.
pub fn mono() -> Mono {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock");
    Mono(now.tv_sec() as u64 * 1_000 + now.tv_nsec() as u64 / 1_000_000)
}

/// Has the kernel end this process (SIGPROF) once it has used so much more processor time; each call begins
/// anew. It wakes nobody.
pub fn die_after_busy(time: Millis) {
    let value = libc::timeval { tv_sec: (time.0 / 1_000) as libc::time_t, tv_usec: 0 };
    let once = libc::itimerval { it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 }, it_value: value };
    // SAFETY: setitimer reads one structure, a local.
    unsafe { libc::setitimer(libc::ITIMER_PROF, &once, std::ptr::null_mut()) };
}

/// Milliseconds since the Unix epoch; a clock set to before it reads as zero.
pub fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mono_runs_in_milliseconds() {
        let (before, timer) = (mono(), std::time::Instant::now());
        while timer.elapsed().as_millis() < 5 {}
        let passed = mono().since(before);
        assert!(passed >= Millis(4), "{passed:?}");
        assert!(u128::from(passed.0) <= timer.elapsed().as_millis() + 1, "{passed:?}");
    }

    #[test]
    fn wall_is_in_this_century() {
        let year_2020 = 1_577_836_800_000;
        assert!((year_2020..year_2020 * 3).contains(&wall().0));
    }
}
