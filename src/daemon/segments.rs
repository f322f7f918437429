//! The files that hold the past of processes in numbers: blocks are written at the end of one segment, until it is
//! full and the other one is begun anew. Readers read them as they are; what is torn they skip, and so need we do
//! nothing about it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::protocol::samples::host::Host;
use crate::protocol::samples::{self, BEGINNING, FOLDER, Pace, Record, SEGMENTS};
use crate::time::{Millis, Wall};

/// So much of the end of a segment is read by a daemon that takes over.
const RECENT: u64 = 4 << 20;
/// A segment that begins so much later than now is from before the clock was set.
const SET_BACK: Millis = Millis(3_600_000);

/// The segments of one pace.
#[derive(Debug)]
pub struct Segments {
    folder: PathBuf,
    pace: Pace,
    /// For how long a segment is written to, and the most bytes of it.
    span: Millis,
    cap: u64,
    /// The one that is written to, and when it was begun.
    current: Option<(usize, Wall)>,
    /// When something was written last.
    last: Option<Wall>,
}

impl Segments {
    /// Those of a home, each of which is written to for so long.
    pub fn of(home: &Path, pace: Pace, span: Millis) -> Segments {
        Segments { folder: home.join(FOLDER), pace, span, cap: pace.cap(), current: None, last: None }
    }

    /// Whether a block of so many records is due, when blocks should be at least so far apart: further, where a
    /// segment would not hold its span else.
    pub fn is_due(&self, at: Wall, apart: Millis, records: usize) -> bool {
        let length = u128::from(samples::length(records));
        let spread = u128::from(self.span.0) * length / u128::from(self.cap.max(1));
        let apart = apart.0.max(spread as u64);
        // A little less will do: timers are late by a little, or not at all.
        self.last.is_none_or(|last| at < last || at.0 - last.0 >= apart - apart / 10)
    }

    /// Writes a block. What fails is tried again with the next one.
    pub fn append(&mut self, at: Wall, records: &[Record], host: &Host) -> io::Result<()> {
        let block = samples::block(at, records, host);
        if self.current.is_none() {
            self.current = self.find();
        }
        let current = self.current.filter(|(segment, begun)| !self.is_full(*segment, *begun, at, &block));
        let (segment, begun) = match (current, self.current) {
            (Some(current), _) => current,
            (None, before) => (before.map_or(0, |(segment, _)| (segment + 1) % SEGMENTS), at),
        };
        let path = self.path(segment);
        if current.is_none() {
            match DirBuilder::new().mode(0o700).create(&self.folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        let before = file.metadata()?.len();
        if file.write(&block)? < block.len() {
            // No room. What would be torn is taken back, so that it does not pile up.
            let _ = file.set_len(before);
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        self.current = Some((segment, begun));
        self.last = Some(at);
        Ok(())
    }

    fn is_full(&self, segment: usize, begun: Wall, at: Wall, block: &[u8]) -> bool {
        // One that somebody has removed is begun again.
        let Ok(found) = fs::metadata(self.path(segment)) else { return true };
        let is_over = at.0 >= begun.0.saturating_add(self.span.0);
        is_over || begun.0 > at.0.saturating_add(SET_BACK.0) || found.len() + block.len() as u64 > self.cap
    }

    fn path(&self, segment: usize) -> PathBuf {
        self.folder.join(self.pace.file(segment))
    }

    /// The segment that was begun last.
    fn find(&self) -> Option<(usize, Wall)> {
        let begun = |segment: usize| {
            let mut head = [0; BEGINNING];
            File::open(self.path(segment)).ok()?.read_exact(&mut head).ok()?;
            Some((segment, samples::begun(&head)?))
        };
        (0..SEGMENTS).filter_map(begun).max_by_key(|(_, begun)| *begun)
    }

    /// What was written of late: the ends of the segments.
    pub fn recent(&self) -> Vec<Vec<u8>> {
        let end = |segment: usize| {
            let mut file = File::open(self.path(segment)).ok()?;
            let length = file.metadata().ok()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(RECENT))).ok()?;
            let mut bytes = Vec::new();
            file.take(RECENT).read_to_end(&mut bytes).ok()?;
            Some(bytes)
        };
        (0..SEGMENTS).filter_map(end).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::samples::Blocks;
    use std::os::unix::fs::PermissionsExt;

    const MINUTE: u64 = 60_000;
    const DAY: u64 = 1_440 * MINUTE;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let path = std::env::temp_dir().join(format!("pmx-segments-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Place(path)
        }

        fn segments(&self) -> Segments {
            Segments::of(&self.0, Pace::Minutes, Pace::Minutes.span())
        }

        fn times(&self, segment: usize) -> Vec<u64> {
            let bytes = fs::read(self.0.join(FOLDER).join(Pace::Minutes.file(segment))).unwrap_or_default();
            Blocks::of(&bytes).map(|block| block.at.0).collect()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    impl Segments {
        fn put(&mut self, at: Wall, records: &[Record]) -> io::Result<()> {
            self.append(at, records, &Host::default())
        }
    }

    fn records(count: u32) -> Vec<Record> {
        (0..count).map(|id| Record { id, memory_kb: 100, ..Record::default() }).collect()
    }

    #[test]
    fn a_full_segment_makes_room_for_the_other() {
        let place = Place::new("wrap");
        let mut segments = place.segments();
        let from = 1_700_000_000_000;
        for hour in 0..80 {
            segments.put(Wall(from + hour * 60 * MINUTE), &records(3)).unwrap();
            let all = [place.times(0), place.times(1)].concat();
            assert!(all.len() <= 48, "two days at most");
            let oldest = all.iter().min().unwrap();
            let reaches = from + hour * 60 * MINUTE - oldest >= DAY.min(hour * 60 * MINUTE);
            assert!(reaches, "a day is there whatever was replaced, hour {hour}");
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let folder = place.0.join(FOLDER);
        assert_eq!(
            (mode(&folder), mode(&folder.join("minutes.0")), mode(&folder.join("minutes.1"))),
            (0o700, 0o600, 0o600)
        );
        assert_eq!(fs::read_dir(folder).unwrap().count(), 2);
    }

    #[test]
    fn many_processes_are_bounded_by_bytes_and_written_more_rarely() {
        let place = Place::new("cap");
        let mut segments = Segments { cap: 200_000, ..place.segments() };
        let from = 1_700_000_000_000;
        let mut written = 0;
        for minute in 0..3 * 1_440 {
            let at = Wall(from + minute * MINUTE);
            if segments.is_due(at, Millis(MINUTE), 400) {
                segments.put(at, &records(400)).unwrap();
                written += 1;
            }
            let sizes: u64 =
                [0, 1].map(|n| fs::metadata(segments.path(n)).map_or(0, |found| found.len())).iter().sum();
            assert!(sizes <= 400_000, "{sizes}");
        }
        assert!((45..=75).contains(&written), "{written} blocks of 9680 bytes in three days");
        let all = [place.times(0), place.times(1)].concat();
        let last = from + 3 * DAY;
        assert!(last - all.iter().min().unwrap() >= DAY * 9 / 10, "and the day is there");
        // A clock that is set back makes no pause.
        assert!(segments.is_due(Wall(5), Millis(MINUTE), 1));
    }

    #[test]
    fn the_next_daemon_goes_on_where_one_was_torn_away() {
        let place = Place::new("next");
        let from = 1_700_000_000_000;
        let mut segments = place.segments();
        segments.put(Wall(from), &records(2)).unwrap();
        segments.put(Wall(from + DAY), &records(2)).unwrap();
        assert_eq!((place.times(0), place.times(1)), (vec![from], vec![from + DAY]));
        let path = segments.path(1);
        let torn = samples::block(Wall(from + DAY + MINUTE), &records(9), &Host::default());
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(&torn[..100]).unwrap();
        let mut next = place.segments();
        next.put(Wall(from + DAY + 2 * MINUTE), &records(2)).unwrap();
        assert_eq!(
            place.times(1),
            [from + DAY, from + DAY + 2 * MINUTE],
            "in the segment that was begun last"
        );
        assert_eq!(place.times(0), [from]);
        // What is no segment is replaced.
        fs::write(segments.path(0), "nothing of ours").unwrap();
        fs::write(&path, "x").unwrap();
        place.segments().put(Wall(from + 3 * DAY), &records(1)).unwrap();
        assert_eq!(place.times(0), [from + 3 * DAY]);
    }

    #[test]
    fn a_segment_that_was_removed_or_lies_in_the_future_is_begun_again() {
        let place = Place::new("removed");
        let mut segments = place.segments();
        segments.put(Wall(9 * DAY), &records(1)).unwrap();
        fs::remove_dir_all(place.0.join(FOLDER)).unwrap();
        segments.put(Wall(9 * DAY + MINUTE), &records(1)).unwrap();
        assert_eq!([place.times(0), place.times(1)].concat(), [9 * DAY + MINUTE]);
        segments.put(Wall(DAY), &records(1)).unwrap();
        assert_eq!([place.times(0), place.times(1)].concat(), [DAY, 9 * DAY + MINUTE]);
    }

    #[test]
    fn a_place_that_takes_nothing_harms_nobody() {
        let place = Place::new("nowhere");
        fs::write(place.0.join(FOLDER), "a file").unwrap();
        let mut segments = place.segments();
        for minute in 0..3 {
            assert!(segments.put(Wall(minute * MINUTE), &records(1)).is_err() && segments.last.is_none());
        }
        fs::remove_file(place.0.join(FOLDER)).unwrap();
        segments.put(Wall(9 * MINUTE), &records(1)).unwrap();
        assert_eq!(place.times(0), [9 * MINUTE]);
        // A disk without room: what fits of a block is taken back.
        let full = Path::new("/dev/full");
        fs::remove_file(segments.path(0)).unwrap();
        std::os::unix::fs::symlink(full, segments.path(0)).unwrap();
        assert!(segments.put(Wall(10 * MINUTE), &records(1)).is_err());
    }

    #[test]
    fn what_was_written_of_late_is_had_without_the_rest() {
        let place = Place::new("recent");
        let mut segments = place.segments();
        for minute in 0..60 {
            segments.put(Wall(minute * MINUTE), &records(5_000)).unwrap();
        }
        let recent = segments.recent();
        assert!(recent.iter().all(|bytes| bytes.len() as u64 <= RECENT));
        let last = recent.iter().flat_map(|bytes| Blocks::of(bytes)).map(|block| block.at.0).max();
        assert_eq!(last, Some(59 * MINUTE));
    }
}
