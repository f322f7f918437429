//! The past of processes in numbers, as it lies in the home: what the daemon writes and clients read for themselves.
//! Pure: bytes and values.
//!
//! `history/minutes.{0,1}` and `history/seconds.{0,1}` are segments, of which the older one is replaced when the
//! newer is full. A segment is a row of blocks, and a block a head, two records of the machine and one of each process,
//! all little-endian:
//!
//! ```text
//! head    magic "pmxH" · version u16 · bytes of a record u16 · wall time in ms u64 · records u32 · 0 u32 · CRC-64 u64
//! machine 2^32-1 u32 · 1 u32 · CPU u16 · disk u16 · load u32 · memory u64
//!         2^32-1 u32 · 2 u32 · bytes in u64 · bytes out u64
//! record  id u32 · name u32 · CPU u32 · memory u32 · fds u16 · threads u16 · restarts u32
//! ```
//!
//! What is not known is all ones. The checksum is that of all of the block but itself. What is torn or strange is skipped
//! up to the next block that is whole. A later version may make records longer at their end, or add some of the machine
//! with other numbers; an earlier one wrote none of the machine.

pub mod host;

use std::collections::BTreeMap;

use host::Host;

use crate::app::dump::crc64;
use crate::time::{Millis, Wall};

/// The folder in the home.
pub const FOLDER: &str = "history";
/// The segments of a pace.
pub const SEGMENTS: usize = 2;

const MAGIC: &[u8; 4] = b"pmxH";
const VERSION: u16 = 1;
const HEAD: usize = 32;
/// Where in the head the checksum stands.
const SUM: usize = 24;
const RECORD: usize = 24;

/// How far apart samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pace {
    /// While somebody looks, or a memory limit is watched over: the last hour.
    Seconds,
    /// While anything runs: the last day.
    Minutes,
}

impl Pace {
    /// How far back a reader may look.
    pub fn span(self) -> Millis {
        match self {
            Pace::Seconds => Millis(3_600_000),
            Pace::Minutes => Millis(86_400_000),
        }
    }

    /// The most bytes of one segment. Where so many processes run that a span needs more, blocks are written more
    /// rarely.
    pub fn cap(self) -> u64 {
        match self {
            Pace::Seconds => 8 << 20,
            Pace::Minutes => 16 << 20,
        }
    }

    /// A segment below [`FOLDER`].
    pub fn file(self, segment: usize) -> String {
        let word = match self {
            Pace::Seconds => "seconds",
            Pace::Minutes => "minutes",
        };
        format!("{word}.{segment}")
    }
}

/// What a process and all that it brought about used at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The process.
    pub id: u32,
    /// See [`name_of`].
    pub name: u32,
    /// Processor time since the sample before, in thousandths of a core.
    pub cpu: Option<u32>,
    /// Resident memory, in KiB.
    pub memory_kb: u32,
    /// Open files.
    pub fds: Option<u16>,
    /// Threads.
    pub threads: u16,
    /// How often a child was replaced.
    pub restarts: u32,
}

/// By which the records of an app are told from those of another one that had the same id.
pub fn name_of(namespace: &str, name: &str) -> u32 {
    crc64(format!("{namespace}\0{name}").as_bytes()) as u32
}

impl Record {
    fn bytes(&self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        bytes[0..4].copy_from_slice(&self.id.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.name.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.cpu.map_or(u32::MAX, |cpu| cpu.min(u32::MAX - 1)).to_le_bytes());
        bytes[12..16].copy_from_slice(&self.memory_kb.to_le_bytes());
        bytes[16..18].copy_from_slice(&self.fds.map_or(u16::MAX, |fds| fds.min(u16::MAX - 1)).to_le_bytes());
        bytes[18..20].copy_from_slice(&self.threads.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.restarts.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Record> {
        Some(Record {
            id: long(bytes, 0)?,
            name: long(bytes, 4)?,
            cpu: Some(long(bytes, 8)?).filter(|cpu| *cpu != u32::MAX),
            memory_kb: long(bytes, 12)?,
            fds: Some(short(bytes, 16)?).filter(|fds| *fds != u16::MAX),
            threads: short(bytes, 18)?,
            restarts: long(bytes, 20)?,
        })
    }
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn longest(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// How long a block of so many processes is.
pub fn length(records: usize) -> u64 {
    (HEAD + (host::RECORDS + records) * RECORD) as u64
}

/// A block.
pub fn block(at: Wall, records: &[Record], host: &Host) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length(records.len()) as usize);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(RECORD as u16).to_le_bytes());
    bytes.extend_from_slice(&at.0.to_le_bytes());
    bytes.extend_from_slice(&((host::RECORDS + records.len()) as u32).to_le_bytes());
    bytes.extend_from_slice(&[0; 12]);
    bytes.extend_from_slice(&host.bytes());
    for record in records {
        bytes.extend_from_slice(&record.bytes());
    }
    let sum = sum(&bytes);
    bytes[SUM..HEAD].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn sum(block: &[u8]) -> u64 {
    // Not in one piece: the checksum stands between.
    crc64(&block[..SUM]) ^ crc64(&block[HEAD..]).rotate_left(1)
}

/// When a segment begins: the time of its first block, whether or not the rest of that is whole.
pub fn begun(head: &[u8]) -> Option<Wall> {
    head.starts_with(MAGIC).then(|| longest(head, 8).map(Wall))?
}

/// How many bytes of a segment are enough to look for its beginning.
pub const BEGINNING: usize = HEAD;

/// The whole blocks of a segment, or of a part of one.
#[derive(Clone, Debug)]
pub struct Blocks<'a> {
    bytes: &'a [u8],
}

/// A block that is whole.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// When.
    pub at: Wall,
    stride: usize,
    records: &'a [u8],
}

impl<'a> Blocks<'a> {
    /// Those in these bytes.
    pub fn of(bytes: &'a [u8]) -> Blocks<'a> {
        Blocks { bytes }
    }

    /// The block at the beginning, and where it ends.
    fn first(&self) -> Option<(Block<'a>, usize)> {
        let bytes = self.bytes;
        let stride = usize::from(short(bytes, 6)?);
        let count = long(bytes, 16)? as usize;
        if !bytes.starts_with(MAGIC) || short(bytes, 4)? != VERSION || stride < RECORD {
            return None;
        }
        let end = stride.checked_mul(count)?.checked_add(HEAD)?;
        let whole = bytes.get(..end)?;
        let is_whole = sum(whole) == longest(bytes, SUM)?;
        is_whole.then(|| {
            (Block { at: Wall(longest(bytes, 8).unwrap_or(0)), stride, records: &whole[HEAD..] }, end)
        })
    }
}

impl<'a> Iterator for Blocks<'a> {
    type Item = Block<'a>;

    fn next(&mut self) -> Option<Block<'a>> {
        while !self.bytes.is_empty() {
            if let Some((block, end)) = self.first() {
                self.bytes = &self.bytes[end..];
                return Some(block);
            }
            let next = self.bytes[1..].windows(MAGIC.len()).position(|found| found == MAGIC);
            self.bytes = next.map_or(&[], |at| &self.bytes[at + 1..]);
        }
        None
    }
}

impl<'a> Block<'a> {
    /// Its records of processes.
    pub fn records(self) -> impl Iterator<Item = Record> + 'a {
        let records = self.records.chunks_exact(self.stride).filter_map(Record::read);
        records.filter(|record| record.id != host::ID)
    }

    /// What it tells of the machine.
    pub fn host(self) -> Host {
        let mut host = Host::default();
        self.records.chunks_exact(self.stride).for_each(|record| host.learn(record));
        host
    }
}

/// One sample of a process.
pub type Point = (Wall, Record);

/// The samples of these processes (ids, and [`name_of`] each) since a moment, by id and in the order of time.
pub fn series(segments: &[Vec<u8>], since: Wall, wanted: &BTreeMap<u32, u32>) -> BTreeMap<u32, Vec<Point>> {
    let mut found: BTreeMap<u32, Vec<Point>> = wanted.keys().map(|id| (*id, Vec::new())).collect();
    for block in segments.iter().flat_map(|bytes| Blocks::of(bytes)).filter(|block| block.at >= since) {
        for record in block.records().filter(|record| wanted.get(&record.id) == Some(&record.name)) {
            found.entry(record.id).or_default().push((block.at, record));
        }
    }
    for points in found.values_mut() {
        points.sort_by_key(|(at, _)| *at);
    }
    found
}

/// In which of so many equal parts of the time between two moments this one lies.
fn place(at: Wall, since: Wall, until: Wall, count: usize) -> Option<usize> {
    let last = count.checked_sub(1)?;
    let length = u128::from(until.0.saturating_sub(since.0).max(1));
    let is_within = (since.0..=until.0).contains(&at.0);
    is_within.then(|| ((u128::from(at.0 - since.0) * count as u128 / length) as usize).min(last))
}

/// So many equal parts of the time between two moments, each with what was found in it, the mean of processor time
/// and the most of all else.
pub fn parts(points: &[Point], since: Wall, until: Wall, count: usize) -> Vec<Option<Record>> {
    let mut parts: Vec<Option<Record>> = vec![None; count];
    let mut cpu = vec![(0u64, 0u64); count];
    for (at, record) in points {
        let Some(place) = place(*at, since, until, count) else { continue };
        let known = parts[place].get_or_insert(*record);
        known.memory_kb = known.memory_kb.max(record.memory_kb);
        known.fds = known.fds.max(record.fds);
        known.threads = known.threads.max(record.threads);
        known.restarts = known.restarts.max(record.restarts);
        if let Some(used) = record.cpu {
            let (sum, count) = &mut cpu[place];
            (*sum, *count) = (*sum + u64::from(used), *count + 1);
            known.cpu = Some((*sum / *count) as u32);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u32, memory_kb: u32) -> Record {
        Record { id, name: 7, cpu: Some(500), memory_kb, fds: Some(12), threads: 3, restarts: 1 }
    }

    fn process_block(at: u64, records: &[Record]) -> Vec<u8> {
        block(Wall(at), records, &Host::default())
    }

    fn times(bytes: &[u8]) -> Vec<u64> {
        Blocks::of(bytes).map(|block| block.at.0).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let unknown = Record { cpu: None, fds: None, ..record(u32::MAX - 1, u32::MAX) };
        let records = [record(0, 1), unknown, record(9, 0)];
        let bytes = block(Wall(1_700_000_000_000), &records, &Host::default());
        assert_eq!(bytes.len() as u64, length(3));
        assert_eq!(begun(&bytes[..BEGINNING]), Some(Wall(1_700_000_000_000)));
        let found: Vec<_> = Blocks::of(&bytes).collect();
        assert_eq!((found.len(), found[0].at), (1, Wall(1_700_000_000_000)));
        assert_eq!(found[0].records().collect::<Vec<_>>(), records);
        // More than can be said is as much as can be said.
        let most = Record { cpu: Some(u32::MAX), fds: Some(u16::MAX), ..record(1, 1) };
        let read = Blocks::of(&process_block(0, &[most])).flat_map(Block::records).next().unwrap();
        assert_eq!((read.cpu, read.fds), (Some(u32::MAX - 1), Some(u16::MAX - 1)));
    }

    /// A block whose records are others, and each so long.
    fn with_body(block: &[u8], body: &[u8], stride: usize) -> Vec<u8> {
        let mut bytes = [&block[..HEAD], body].concat();
        bytes[6..8].copy_from_slice(&(stride as u16).to_le_bytes());
        bytes[16..20].copy_from_slice(&((body.len() / stride) as u32).to_le_bytes());
        let sum = sum(&bytes);
        bytes[SUM..HEAD].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    #[test]
    fn other_versions_are_read_as_far_as_they_are_known() {
        let known = Host { cpu: Some(7), load: Some(8), ..Host::default() };
        let block = block(Wall(5), &[record(3, 10), record(4, 10)], &known);
        let read = |bytes: &[u8]| {
            let found = Blocks::of(bytes).next().unwrap();
            (found.host(), found.records().map(|record| record.id).collect::<Vec<_>>())
        };
        assert_eq!(read(&block), (known, vec![3, 4]));
        // A later one, with longer records, and more of the machine.
        let longer: Vec<u8> =
            block[HEAD..].chunks(RECORD).flat_map(|record| [record, &[0xff; 8]].concat()).collect();
        assert_eq!(read(&with_body(&block, &longer, RECORD + 8)), (known, vec![3, 4]));
        let mut unknown = known.bytes()[..RECORD].to_vec();
        unknown[4] = 99;
        assert_eq!(
            read(&with_body(&block, &[&block[HEAD..], &unknown].concat(), RECORD)),
            (known, vec![3, 4])
        );
        // An earlier one, which told nothing of the machine.
        let earlier = &block[HEAD + host::RECORDS * RECORD..];
        assert_eq!(read(&with_body(&block, earlier, RECORD)), (Host::default(), vec![3, 4]));
    }

    #[test]
    fn a_torn_block_is_skipped_and_what_follows_is_found() {
        let (one, two, three) =
            (process_block(1, &[record(1, 1)]), process_block(2, &[record(1, 2); 5]), process_block(3, &[]));
        for cut in 0..two.len() {
            let torn = [&one[..], &two[..cut], &three, &one].concat();
            assert_eq!(times(&torn), [1, 3, 1], "cut after {cut}");
            assert_eq!(times(&[&one[..], &two[..cut]].concat()), [1], "a torn tail of {cut}");
        }
        // Whatever is changed in one of them, the others are found.
        for at in 0..two.len() {
            let mut changed = [&one[..], &two, &three].concat();
            changed[one.len() + at] ^= 0x40;
            assert_eq!(times(&changed), [1, 3], "byte {at}");
        }
        assert!(times(&two[7..]).is_empty());
        assert_eq!(times(&[&two[7..], &three].concat()), [3], "a part that begins in the middle");
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut seed = 1u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u8
        };
        for round in 0..2_000 {
            let mut bytes: Vec<u8> = (0..round % 300).map(|_| next()).collect();
            for at in (0..bytes.len()).step_by(40) {
                let end = (at + 4).min(bytes.len());
                bytes[at..end].copy_from_slice(&MAGIC[..end - at]);
            }
            host::series(&[bytes.clone()], Wall(0));
            let found: Vec<Record> = Blocks::of(&bytes).flat_map(Block::records).collect();
            let points: Vec<Point> = found.iter().map(|record| (Wall(u64::from(next())), *record)).collect();
            parts(&points, Wall(3), Wall(9), usize::from(next()));
            begun(&bytes);
        }
        let extremes = [(Wall(0), record(1, 1)), (Wall(u64::MAX), record(1, 1))];
        assert_eq!(parts(&extremes, Wall(0), Wall(u64::MAX), 2).iter().flatten().count(), 2);
        assert!(parts(&extremes, Wall(5), Wall(5), 3).iter().all(Option::is_none));
        assert!(parts(&extremes, Wall(0), Wall(1), 0).is_empty());
    }

    #[test]
    fn series_are_of_who_was_asked_for_and_in_order() {
        let stranger = Record { name: 8, ..record(1, 99) };
        let newer =
            [process_block(30, &[record(1, 3), record(2, 9)]), process_block(40, &[stranger])].concat();
        let older = [process_block(10, &[record(1, 1)]), process_block(20, &[record(1, 2)])].concat();
        let found = series(&[newer, older], Wall(20), &BTreeMap::from([(1, 7), (5, 7)]));
        let memory = |id| found[&id].iter().map(|(at, record)| (at.0, record.memory_kb)).collect::<Vec<_>>();
        assert_eq!(memory(1), [(20, 2), (30, 3)]);
        assert!(memory(5).is_empty());
        assert!(!found.contains_key(&2));
    }

    #[test]
    fn parts_hold_the_mean_of_cpu_and_the_most_of_memory() {
        let of = |at, cpu, memory_kb| (Wall(at), Record { cpu, ..record(1, memory_kb) });
        let points =
            [of(0, Some(100), 5), of(4, Some(300), 9), of(5, None, 1), of(14, None, 4), of(20, Some(1), 2)];
        let parts = parts(&points, Wall(0), Wall(20), 4);
        let short: Vec<_> = parts.iter().map(|part| part.map(|part| (part.cpu, part.memory_kb))).collect();
        assert_eq!(short, [Some((Some(200), 9)), Some((None, 1)), Some((None, 4)), Some((Some(1), 2))]);
    }

    #[test]
    fn a_day_and_an_hour_of_many_processes_are_bounded() {
        for pace in [Pace::Seconds, Pace::Minutes] {
            assert!(length(10_000) < pace.cap() / 10, "a segment holds more than a few blocks");
        }
        assert!(length(400) * 1_440 < Pace::Minutes.cap(), "400 processes each minute of a day");
    }
}
