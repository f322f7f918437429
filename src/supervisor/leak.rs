//! Whether the memory of one run of a process grows steadily. Of each few samples only the least is kept: what a
//! garbage collector gives back again and again, and noise, are no growth. Pure; what it takes is a constant.

use crate::time::Millis;

/// So many samples are one window.
const WINDOW: u64 = 5;
/// So many windows are looked at: 80 minutes, at a sample a minute.
const WINDOWS: usize = 16;
/// So many samples after its start a process warms up.
const WARM_UP: u64 = 10;
/// The slowest growth that is told, in KiB per hour, and in parts of the memory per hour.
const SLOWEST: f64 = 1024.0;
const SLOWEST_PART: f64 = 0.01;
/// How far the mean step must stand out from the scatter of the steps: in its own standard errors.
const CERTAINTY: f64 = 9.0;
/// How much of what happened a straight line must explain.
const FIT: f64 = 0.95;
/// What grows ever more slowly is about to be done: the last third must grow at least so fast, beside the first.
const LASTING: f64 = 0.75;
/// It is over when less than this part of the rate at which it was told is left.
const OVER: f64 = 0.25;

/// What is known of the memory of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Leak {
    /// The least memory in each of the last windows, in KiB, oldest first.
    floors: [u32; WINDOWS],
    count: u8,
    /// The window that goes on, and the least in it.
    window: u32,
    floor: u32,
    /// KiB per hour, while it is a leak.
    rate: u32,
}

impl Leak {
    /// Takes in what a process used when it had run for so long; samples come each `every`. True: from now on it is a
    /// leak, and was none before.
    pub fn sample(&mut self, age: Millis, every: Millis, memory_kb: u32) -> bool {
        let every = every.0.max(1);
        let Some(since) = age.0.checked_sub(every * WARM_UP) else { return false };
        let window = u32::try_from(since / (every * WINDOW)).unwrap_or(u32::MAX);
        if window == self.window && self.floor > 0 {
            self.floor = self.floor.min(memory_kb);
            return false;
        }
        let (before, floor) = (self.window, self.floor);
        (self.window, self.floor) = (window, memory_kb.max(1));
        if floor == 0 {
            return false;
        }
        self.push(floor);
        if window != before + 1 {
            // Nobody looked for a while: what comes does not go on from what was.
            self.count = 0;
            return false;
        }
        let rate = self.judge(3_600_000.0 / (every * WINDOW) as f64);
        let is_new = rate > 0 && self.rate == 0;
        self.rate = rate;
        is_new
    }

    /// While it is a leak: how fast it grows, in bytes per hour.
    pub fn rate(&self) -> Option<u64> {
        (self.rate > 0).then(|| u64::from(self.rate) << 10)
    }

    fn push(&mut self, floor: u32) {
        self.floors.rotate_left(1);
        self.floors[WINDOWS - 1] = floor;
        self.count = (self.count + 1).min(WINDOWS as u8);
    }

    /// KiB per hour, if it is a leak or goes on being one; else 0.
    fn judge(&self, windows_per_hour: f64) -> u32 {
        if usize::from(self.count) < WINDOWS {
            return self.rate;
        }
        let floors = self.floors.map(f64::from);
        let line = Line::through(&floors);
        let rate = line.slope * windows_per_hour;
        if self.rate > 0 {
            let goes_on = rate > f64::from(self.rate) * OVER;
            return if goes_on { rate as u32 } else { 0 };
        }
        let last = floors[WINDOWS - 1];
        let is_leak = rate >= SLOWEST.max(last * SLOWEST_PART)
            && line.fit >= FIT
            && is_steady(&floors)
            && lasts(&floors);
        if is_leak { (rate as u32).max(1) } else { 0 }
    }
}

/// The straight line through values at equal distances, and what it explains of them.
struct Line {
    slope: f64,
    fit: f64,
}

impl Line {
    fn through(values: &[f64; WINDOWS]) -> Line {
        let count = WINDOWS as f64;
        let (middle, mean) = ((count - 1.0) / 2.0, values.iter().sum::<f64>() / count);
        let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
        for (at, value) in values.iter().enumerate() {
            let (x, y) = (at as f64 - middle, value - mean);
            xx += x * x;
            xy += x * y;
            yy += y * y;
        }
        let fit = if yy > 0.0 { xy * xy / (xx * yy) } else { 0.0 };
        Line { slope: xy / xx, fit }
    }
}

/// Whether the steps from window to window are of one kind. A random walk also goes somewhere, in steps that differ.
fn is_steady(floors: &[f64; WINDOWS]) -> bool {
    let count = (WINDOWS - 1) as f64;
    let mean = (floors[WINDOWS - 1] - floors[0]) / count;
    let off = |at: usize| floors[at + 1] - floors[at] - mean;
    let scatter = (0..WINDOWS - 1).map(|at| off(at) * off(at)).sum::<f64>() / (count - 1.0);
    // Noise takes back with one step what it gave with the one before, and leads nowhere.
    let undone = (0..WINDOWS - 2).map(|at| off(at) * off(at + 1)).sum::<f64>() / (count - 1.0);
    let scatter = (scatter + 2.0 * undone).max(scatter / 2.0);
    mean > 0.0 && mean >= CERTAINTY * (scatter / count).sqrt()
}

/// Whether it grows on as it began.
fn lasts(floors: &[f64; WINDOWS]) -> bool {
    let third = WINDOWS / 3;
    let first = floors[third] - floors[0];
    let last = floors[WINDOWS - 1] - floors[WINDOWS - 1 - third];
    last >= first * LASTING
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    /// Numbers that look random, the same each time.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
        }

        /// About normal, with a standard deviation of 1.
        fn normal(&mut self) -> f64 {
            (0..12).map(|_| self.next()).sum::<f64>() - 6.0
        }
    }

    /// The minutes at which a series of KiB was told to be a leak, and the last rate.
    fn told(minutes: u64, mut memory: impl FnMut(u64) -> f64) -> (Vec<u64>, Option<u64>) {
        let mut leak = Leak::default();
        let is_new = |at: &u64| leak.sample(Millis(at * MINUTE), Millis(MINUTE), memory(*at) as u32);
        let told = (0..minutes).filter(is_new).collect();
        (told, leak.rate())
    }

    const DAY: u64 = 1_440;
    const MB: f64 = 1024.0;
    const NEVER: [u64; 0] = [];

    #[test]
    fn a_steady_slope_is_told_once_with_its_rate() {
        for (rate, noise) in
            [(2.0, 0.0), (2.0, 0.05), (10.0, 0.5), (60.0, 2.0), (600.0, 10.0), (6_000.0, 50.0)]
        {
            let mut random = Random(7);
            let (told, growth) =
                told(400, |at| (100.0 + rate * at as f64 / 60.0 + noise * random.normal()) * MB);
            let found = growth.map_or(0.0, |growth| growth as f64 / 1024.0 / 1024.0);
            assert!(told.len() == 1 && (90..=140).contains(&told[0]), "{rate}±{noise}: {told:?}");
            assert!((found / rate - 1.0).abs() < 0.15, "{rate}±{noise}: {found}");
        }
    }

    #[test]
    fn a_leak_below_a_saw_tooth_is_told() {
        // Each few minutes a collector gives everything back but what leaks.
        let (told, growth) = told(400, |at| (80.0 + (at % 4) as f64 * 20.0 + at as f64 * 0.5) * MB);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(growth.is_some_and(|growth| (25 << 20..35 << 20).contains(&growth)), "{growth:?}");
    }

    #[test]
    fn what_only_looks_like_a_leak_is_none() {
        let mut random = Random(3);
        let mut noise = |size: f64| random.normal() * size;
        for period in [2, 3, 5, 8, 12, 20, 30, 45, 60] {
            let saw = told(DAY, |at| (80.0 + (at % period) as f64 * 3.0 + noise(0.5)) * MB);
            assert_eq!(saw.0, NEVER, "a saw-tooth of {period} minutes");
        }
        for time in [3.0, 10.0, 20.0, 40.0, 60.0, 85.0] {
            let warm = told(DAY, |at| (400.0 - 300.0 * (-(at as f64) / time).exp() + noise(0.1)) * MB);
            assert_eq!(warm.0, NEVER, "a warm-up over {time} minutes");
        }
        for at_step in [5, 60, 61, 62, 63, 90, 200] {
            let step = told(DAY, |at| (100.0 + if at > at_step { 200.0 } else { 0.0 } + noise(0.3)) * MB);
            assert_eq!(step.0, NEVER, "a step after {at_step} minutes");
        }
        let steps = told(DAY, |at| (100.0 + (at / 30) as f64 * 20.0 + noise(0.3)) * MB);
        assert_eq!(steps.0, NEVER, "a step each half an hour");
        assert_eq!(told(DAY, |_| (200.0 + noise(20.0)) * MB).0, NEVER, "noise");
        assert_eq!(told(DAY, |at| 1e6 - at as f64 * 100.0).0, NEVER, "it shrinks");
        assert_eq!(told(DAY, |at| (1000.0 + at as f64 * 0.01) * MB).0, NEVER, "too slow to be told");
        assert_eq!(told(DAY, |_| 50_000.0).0, NEVER, "always the same");
        assert_eq!(told(DAY, |_| 0.0).0, NEVER);
    }

    #[test]
    fn days_of_random_walks_are_hardly_ever_told() {
        const SEEDS: u64 = 1_000;
        let flagged = |walk: fn(f64, &mut Random) -> f64| {
            let is_told = |seed: &u64| {
                let (mut random, mut memory) = (Random(seed * 7_919), 500.0);
                let day = told(DAY, |_| {
                    memory = walk(memory, &mut random).clamp(50.0, 4_000.0);
                    memory * MB
                });
                !day.0.is_empty()
            };
            (0..SEEDS).filter(is_told).count()
        };
        // A walk that goes nowhere in particular, and one that is drawn back to where it was.
        let free = flagged(|memory, random| memory + random.normal() * 2.0);
        let tied = flagged(|memory, random| memory + (500.0 - memory) * 0.02 + random.normal() * 2.0);
        println!("told in {free} and {tied} of {SEEDS} days");
        assert!(free <= SEEDS as usize / 100, "{free} of {SEEDS} days");
        assert!(tied <= SEEDS as usize / 200, "{tied} of {SEEDS} days");
    }

    #[test]
    fn it_is_told_again_only_after_it_was_over() {
        // Three hours of a leak, three of rest, and so on.
        let mut memory = 100.0 * MB;
        let (told, growth) = told(15 * 60, |at| {
            if (at / 180) % 2 == 0 {
                memory += 300.0;
            }
            memory
        });
        assert!(told.len() == 3 && told.windows(2).all(|pair| pair[1] - pair[0] > 300), "{told:?}");
        assert!(growth.is_some());
    }

    #[test]
    fn a_pause_begins_anew_and_nothing_is_too_much_for_it() {
        let mut leak = Leak::default();
        let mut at = 0;
        for _ in 0..80 {
            at += MINUTE;
            assert!(!leak.sample(Millis(at), Millis(MINUTE), (at / 100) as u32));
        }
        at += 60 * MINUTE;
        for _ in 0..60 {
            at += MINUTE;
            assert!(
                !leak.sample(Millis(at), Millis(MINUTE), (at / 100) as u32),
                "the pause is no part of it"
            );
        }
        for age in [0, 1, u64::MAX / 2, u64::MAX] {
            for every in [0, 1, 7] {
                for memory in [0, 1, u32::MAX] {
                    leak.sample(Millis(age), Millis(every), memory);
                }
            }
        }
        assert!(size_of::<Leak>() <= 80, "{}", size_of::<Leak>());
    }
}
