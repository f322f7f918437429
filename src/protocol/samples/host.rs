//! What the machine as a whole used: two records of each block, which look like those of a process that there cannot
//! be. Whoever does not know them passes them over.

use super::{Blocks, RECORD, long, longest, place, short};
use crate::time::Wall;

/// How many records it takes.
pub const RECORDS: usize = 2;
/// No process has this id.
pub(super) const ID: u32 = u32::MAX;
/// In the place of a name: what the record holds.
const USE: u32 = 1;
const NETWORK: u32 = 2;

/// What the machine used at one moment. `None`: nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Processor time since the sample before, in thousandths of all processors.
    pub cpu: Option<u16>,
    /// Of the file system of the home, in thousandths.
    pub disk: Option<u16>,
    /// Processes that run or wait, on average of a minute, in hundredths.
    pub load: Option<u32>,
    /// Memory that nobody could have, in bytes.
    pub memory: Option<u64>,
    /// Bytes in and out per second, but for loopback.
    pub network: Option<(u64, u64)>,
}

impl Host {
    pub(super) fn bytes(&self) -> [u8; RECORD * RECORDS] {
        let mut bytes = [0xff; RECORD * RECORDS];
        let (used, network) = bytes.split_at_mut(RECORD);
        used[4..8].copy_from_slice(&USE.to_le_bytes());
        used[8..10].copy_from_slice(&self.cpu.unwrap_or(u16::MAX).to_le_bytes());
        used[10..12].copy_from_slice(&self.disk.unwrap_or(u16::MAX).to_le_bytes());
        used[12..16].copy_from_slice(&self.load.unwrap_or(u32::MAX).to_le_bytes());
        used[16..24].copy_from_slice(&self.memory.unwrap_or(u64::MAX).to_le_bytes());
        let (received, sent) = self.network.unwrap_or((u64::MAX, u64::MAX));
        network[4..8].copy_from_slice(&NETWORK.to_le_bytes());
        network[8..16].copy_from_slice(&received.to_le_bytes());
        network[16..24].copy_from_slice(&sent.to_le_bytes());
        bytes
    }

    /// Takes in what a record tells of the machine.
    pub(super) fn learn(&mut self, record: &[u8]) {
        match (long(record, 0), long(record, 4)) {
            (Some(ID), Some(USE)) => {
                self.cpu = short(record, 8).filter(|cpu| *cpu != u16::MAX);
                self.disk = short(record, 10).filter(|disk| *disk != u16::MAX);
                self.load = long(record, 12).filter(|load| *load != u32::MAX);
                self.memory = longest(record, 16).filter(|memory| *memory != u64::MAX);
            }
            (Some(ID), Some(NETWORK)) => {
                let known = longest(record, 8).zip(longest(record, 16));
                self.network = known.filter(|both| *both != (u64::MAX, u64::MAX));
            }
            _ => {}
        }
    }
}

/// The samples of the machine since a moment, in the order of time.
pub fn series(segments: &[Vec<u8>], since: Wall) -> Vec<(Wall, Host)> {
    let blocks = segments.iter().flat_map(|bytes| Blocks::of(bytes)).filter(|block| block.at >= since);
    let mut found: Vec<(Wall, Host)> = blocks.map(|block| (block.at, block.host())).collect();
    found.retain(|(_, host)| *host != Host::default());
    found.sort_by_key(|(at, _)| *at);
    found
}

/// So many equal parts of the time between two moments, each with what was found in it: the mean of processor time and
/// network, and the most of all else.
pub fn parts(points: &[(Wall, Host)], since: Wall, until: Wall, count: usize) -> Vec<Option<Host>> {
    let mut parts: Vec<Option<Host>> = vec![None; count];
    let mut sums: Vec<[(u128, u128); 3]> = vec![Default::default(); count];
    for (at, host) in points {
        let Some(place) = place(*at, since, until, count) else { continue };
        let known = parts[place].get_or_insert(*host);
        known.disk = known.disk.max(host.disk);
        known.load = known.load.max(host.load);
        known.memory = known.memory.max(host.memory);
        let [cpu, received, sent] = &mut sums[place];
        if let Some(used) = host.cpu {
            known.cpu = Some(mean(cpu, used.into()) as u16);
        }
        if let Some((came, went)) = host.network {
            known.network = Some((mean(received, came), mean(sent, went)));
        }
    }
    parts
}

/// The mean of all that came so far, and of one more.
fn mean(all: &mut (u128, u128), more: u64) -> u64 {
    *all = (all.0 + u128::from(more), all.1 + 1);
    (all.0 / all.1) as u64
}

#[cfg(test)]
mod tests {
    use super::super::{Record, block};
    use super::*;

    fn host(cpu: u16, load: u32, received: u64) -> Host {
        let (memory, network) = (Some(5 << 40), Some((received, 0)));
        Host { cpu: Some(cpu), disk: Some(250), load: Some(load), memory, network }
    }

    #[test]
    fn what_is_written_is_read_and_is_no_process() {
        let record = Record { id: 3, name: 7, ..Record::default() };
        for known in [
            Host::default(),
            host(0, 0, 0),
            host(1_000, 12_345, 1 << 40),
            Host { network: None, ..host(1, 2, 3) },
            Host { load: Some(70), ..Host::default() },
        ] {
            let bytes = block(Wall(9), &[record], &known);
            let found = Blocks::of(&bytes).next().unwrap();
            assert_eq!((found.host(), found.records().collect::<Vec<_>>()), (known, vec![record]));
        }
        let told: Vec<u64> = series(&[block(Wall(9), &[record], &Host::default())], Wall(0))
            .iter()
            .map(|(at, _)| at.0)
            .collect();
        assert_eq!(told, [0; 0], "what nobody knows is no sample");
    }

    #[test]
    fn series_are_in_order_and_of_all_that_was_written() {
        let at = |ms: u64| block(Wall(ms), &[], &host(ms as u16, 1, 1));
        let found = series(&[[at(30), at(40)].concat(), [at(10), at(20)].concat()], Wall(20));
        let told: Vec<_> = found.iter().map(|(at, host)| (at.0, host.cpu)).collect();
        assert_eq!(told, [(20, Some(20)), (30, Some(30)), (40, Some(40))]);
    }

    #[test]
    fn parts_hold_the_mean_of_rates_and_the_most_of_all_else() {
        let silent = Host { cpu: None, network: None, ..host(0, 300, 0) };
        let points = [
            (Wall(0), host(100, 100, 10)),
            (Wall(4), host(300, 200, 20)),
            (Wall(5), silent),
            (Wall(14), silent),
            (Wall(21), host(1, 1, 1)),
        ];
        let parts = parts(&points, Wall(0), Wall(20), 2);
        let expected = [Some(Host { load: Some(300), ..host(200, 0, 15) }), Some(silent)];
        assert_eq!(parts, expected);
        assert!(super::parts(&points, Wall(0), Wall(20), 0).is_empty());
    }
}
