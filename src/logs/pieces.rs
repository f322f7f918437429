//! The end of a long file alone: what is newest is looked through first, and whoever stops can say how far back.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take};
use std::os::unix::fs::FileExt;

use super::history::Content;
use super::scan::{Part, UNTIMED};
use super::times::Times;
use crate::sys::find;
use crate::time::Wall;

/// In so many places a beginning is looked for. Else the file stays whole: its lines are longer than any.
const TRIES: usize = 64;

/// So many times are looked at, because one may be of anything.
const SAMPLE: usize = 100;
/// More than is looked at to find a beginning.
const LEAST: u64 = 2 * UNTIMED as u64;

/// Where the end of a file begins.
struct Border {
    at: u64,
    /// When the first lines from there on were written, if the file tells times: at the earliest, and at the latest.
    times: Option<(Wall, Wall)>,
}

impl Part {
    /// Leaves about so many bytes at the end, at least 128 KiB: from the beginning of a line on, and of one that tells
    /// its time if the file tells any. Answers what is before that, and when what is left begins. What is compressed
    /// can only be read from its beginning, and stays whole.
    pub fn split(&mut self, most: u64, times: &Times) -> (Option<Part>, Option<Wall>) {
        let Ok(Content::Plain(file)) = &mut self.content else { return (None, None) };
        let mut times = times.clone();
        times.of_file(self.ended);
        let (front, border) = match cut(file, most.max(LEAST), &times) {
            Ok(cut) => cut,
            Err(error) => {
                self.content = Err(error);
                return (None, None);
            }
        };
        let (begun, ended) = border.times.map_or((None, self.ended), |(first, last)| (Some(first), last));
        let part = |content| Part { path: self.path.clone(), content: Ok(Content::Plain(content)), ended };
        (front.map(part), begun)
    }
}

/// Takes off what is before the border. Both share one place in the file, which is where what is left begins.
fn cut(file: &mut Take<File>, most: u64, times: &Times) -> io::Result<(Option<Take<File>>, Border)> {
    let end = file.get_ref().metadata()?.len().min(file.limit());
    let border = border(end, most, times, |bytes, at| file.get_ref().read_at(bytes, at))?;
    let front = file.get_ref().try_clone()?.take(border.at);
    file.get_mut().seek(SeekFrom::Start(border.at))?;
    file.set_limit(end - border.at);
    Ok(((border.at > 0).then_some(front), border))
}

/// Looks for it further and further back.
fn border(
    end: u64,
    most: u64,
    times: &Times,
    read: impl Fn(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<Border> {
    let mut block = vec![0; UNTIMED];
    let count = read(&mut block, 0)?;
    let head = told(&block[..count], times);
    let mut at = end;
    for _ in 0..TRIES {
        if at <= most {
            break;
        }
        at -= most;
        let count = read(&mut block, at)?;
        // What stands before it is the rest of a line.
        let Some(newline) = find::byte(b'\n', &block[..count]) else { continue };
        let begin = newline + 1;
        let found = told(&block[begin..count], times);
        if found.is_some() || head.is_none() {
            let offset = found.map_or(0, |(offset, ..)| offset);
            return Ok(Border { at: at + (begin + offset) as u64, times: found.map(|(_, range)| range) });
        }
    }
    Ok(Border { at: 0, times: head.map(|(_, range)| range) })
}

/// Where the first whole line begins that tells its time, and when it and those after it were written.
fn told(text: &[u8], times: &Times) -> Option<(usize, (Wall, Wall))> {
    let mut at = 0;
    let lines = text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let told = lines.filter_map(|line| {
        at += line.len();
        Some((at - line.len(), times.of(line)?))
    });
    told.take(SAMPLE).fold(None, |found, (begin, time)| {
        let (begin, (least, most)) = found.unwrap_or((begin, (time, time)));
        Some((begin, (time.min(least), time.max(most))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Logs;
    use std::io::Write;

    const SECOND: u64 = 1_767_225_600;

    fn part(name: &str, bytes: &[u8]) -> Part {
        let path = std::env::temp_dir().join(format!("pmx-pieces-{name}-{}", std::process::id()));
        let mut file =
            File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.write_all(bytes).unwrap();
        std::fs::remove_file(&path).unwrap();
        Part { path, content: Ok(Content::Plain(file.take(u64::MAX))), ended: Wall(SECOND * 2_000) }
    }

    fn read(part: Part) -> Vec<u8> {
        let mut bytes = Vec::new();
        part.content.unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// All pieces from the last on: their bytes, and when they begin and end.
    fn pieces(mut part: Part) -> Vec<(Vec<u8>, Option<Wall>, Wall)> {
        let times = Times::new(&Logs::default(), Wall(0));
        let mut all = Vec::new();
        loop {
            let (front, begun) = part.split(0, &times);
            let ended = part.ended;
            all.push((read(part), begun, ended));
            let Some(front) = front else { return all };
            part = front;
        }
    }

    /// `2026-01-01T00:00:00Z` and so many seconds, and a few lines that tell no time.
    fn entry(second: u64) -> String {
        format!("{} entry\n  more\n  of it\n", Wall((SECOND + second) * 1_000))
    }

    #[test]
    fn a_long_file_comes_in_pieces_that_begin_with_a_time() {
        let text: String = (0..10_000).map(entry).collect();
        let found = pieces(part("timed", text.as_bytes()));
        assert_eq!(found.len(), text.len().div_ceil(LEAST as usize));
        let whole: Vec<u8> = found.iter().rev().flat_map(|(bytes, ..)| bytes.clone()).collect();
        assert!(whole == text.as_bytes(), "nothing is lost, and nothing comes twice");
        for pair in found.windows(2) {
            let ((bytes, begun, _), (_, _, ended)) = (&pair[0], &pair[1]);
            let begun = begun.unwrap();
            assert!(bytes.starts_with(begun.to_string().as_bytes()), "it begins with its time");
            let minute = Wall(begun.0 + 3_600_000);
            assert!(*ended > begun && *ended < minute, "{ended} is not long after {begun}");
        }
        assert_eq!(found.last().unwrap().1, Some(Wall(SECOND * 1_000)));
        assert_eq!(found[0].2, Wall(SECOND * 2_000), "the last one ends with the file");
    }

    #[test]
    fn whatever_is_in_a_file_its_pieces_are_the_whole() {
        let block = "x".repeat(2 * LEAST as usize);
        let untimed: String = (0..40_000).map(|n| format!("line {n}\n")).collect();
        let found = pieces(part("untimed", untimed.as_bytes()));
        assert!(
            found.len() > 2
                && found.iter().all(|(bytes, begun, ended)| {
                    bytes.starts_with(b"line") && begun.is_none() && *ended == Wall(SECOND * 2_000)
                })
        );
        // Lines that are longer than a piece, and times where no piece would begin.
        for text in [
            String::new(),
            block.clone(),
            format!("{block}\n{block}\n{block}"),
            format!("{}{block}\n{}{untimed}{}", entry(1), entry(2), entry(3)),
            untimed.clone() + &entry(4),
        ] {
            let whole: Vec<u8> = pieces(part("any", text.as_bytes()))
                .into_iter()
                .rev()
                .flat_map(|(bytes, ..)| bytes)
                .collect();
            assert!(whole == text.as_bytes(), "{} bytes of {}", whole.len(), text.len());
        }
        // One that tells times has no piece without.
        let text = format!("{}{untimed}{}", entry(1), entry(2));
        assert_eq!(pieces(part("late", text.as_bytes())).len(), 1);
    }

    #[test]
    fn one_odd_line_is_no_time() {
        // One of another year begins the second piece.
        let text: String = (0..10_000).map(entry).collect();
        let odd = "2035-01-01T00:00:00Z is its end\n";
        let at = text.len() + odd.len() - LEAST as usize;
        let at = at + text[at..].find("\n2026").unwrap() + 1;
        let text = format!("{}{odd}{}", &text[..at], &text[at..]);
        let found = pieces(part("odd", text.as_bytes()));
        assert!(found[0].0.starts_with(odd.as_bytes()));
        assert!(found[0].1.unwrap() < Wall((SECOND + 10_000) * 1_000));
    }
}
