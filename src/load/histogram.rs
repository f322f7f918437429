//! Latencies in log-linear buckets: each power of two of nanoseconds is cut into 64 equal parts, so a
//! percentile is at most 1.6 % above the truth, at any scale, in 30 KiB.

use std::time::Duration;

const PARTS: usize = 64;
const PART_BITS: u32 = PARTS.trailing_zeros();
const BUCKETS: usize = (u64::BITS - PART_BITS + 1) as usize * PARTS;

/// How many requests took how long.
#[derive(Clone)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: vec![0; BUCKETS], count: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts one latency.
    pub fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(nanos)] += 1;
        self.count += 1;
        self.max = self.max.max(nanos);
    }

    /// Adds everything `other` has counted.
    pub fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// The number of latencies counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest one, exactly.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// The latency that the given share (0.5, 0.99, …) of all requests did not exceed; zero if there are none.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = ((share * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(last_of(bucket).min(self.max));
            }
        }
        Duration::ZERO
    }
}

fn bucket_of(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(PART_BITS + 1);
    shift as usize * PARTS + (value >> shift) as usize
}

/// The largest value that falls into the bucket.
fn last_of(bucket: usize) -> u64 {
    if bucket < PARTS {
        return bucket as u64;
    }
    let shift = bucket / PARTS - 1;
    let part = (bucket - shift * PARTS) as u64;
    (part << shift) + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_a_narrow_bucket() {
        let mut value = 1u64;
        for step in 0..4000u64 {
            let last = last_of(bucket_of(value));
            assert!(last >= value, "{value} is above its bucket's end {last}");
            assert!(last - value <= value / PARTS as u64, "{value} is told as {last}");
            assert_eq!(bucket_of(last), bucket_of(value));
            assert!(last == u64::MAX || bucket_of(last + 1) == bucket_of(value) + 1);
            value = value.saturating_add(value / 80 + step % 3);
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert_eq!(last_of(BUCKETS - 1), u64::MAX);
    }

    #[test]
    fn quantiles_of_a_known_distribution() {
        let mut even = Histogram::default();
        let mut odd = Histogram::default();
        for micros in 1..=10_000 {
            let half = if micros % 2 == 0 { &mut even } else { &mut odd };
            half.record(Duration::from_micros(micros));
        }
        even.merge(&odd);
        assert_eq!(even.count(), 10_000);
        assert_eq!(even.max(), Duration::from_millis(10));
        assert_eq!(even.quantile(1.0), Duration::from_millis(10));
        for (share, micros) in [(0.5, 5_000.0), (0.9, 9_000.0), (0.99, 9_900.0), (0.999, 9_990.0)] {
            let told = even.quantile(share).as_secs_f64() * 1e6;
            assert!((micros..micros * 1.016).contains(&told), "p{share}: {told} µs");
        }
    }

    #[test]
    fn nothing_counted_is_zero() {
        assert_eq!(Histogram::default().quantile(0.5), Duration::ZERO);
        assert_eq!(Histogram::default().max(), Duration::ZERO);
    }
}
