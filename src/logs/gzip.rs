//! Writing gzip: pmx does it itself, because where it runs as the only program there is no other.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, TDEFLStatus, compress, create_comp_flags_from_zip_params,
};

/// How much is read at once.
const CHUNK: usize = 256 << 10;
/// As gzip's own default.
const LEVEL: i32 = 6;

/// Compresses a file into another one beside it, which is on disk then.
pub fn pack(path: &Path, part: &Path) -> io::Result<()> {
    let read = |path: &Path| File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(path);
    let mut from = read(path)?;
    let metadata = from.metadata()?;
    let _ = fs::remove_file(part);
    let mut to = File::options().write(true).create_new(true).mode(0o600).open(part)?;
    gzip(&mut from, &mut to)?;
    // Whoever could read it still can, and it is as old as it was.
    let _ = std::os::unix::fs::fchown(&to, Some(metadata.uid()), Some(metadata.gid()));
    to.set_permissions(fs::Permissions::from_mode(metadata.mode() & 0o777))?;
    to.set_modified(metadata.modified()?)?;
    // It takes the place of what it was made from: it must be on disk before that goes.
    to.sync_all()
}

/// Compresses all of `from` into `to`.
fn gzip(from: &mut File, to: &mut File) -> io::Result<()> {
    // Deflate, without a name and a time, by Unix.
    to.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3])?;
    // No zlib header: a negative window.
    let mut compressor = CompressorOxide::new(create_comp_flags_from_zip_params(LEVEL, -15, 0));
    let (mut input, mut output) = (vec![0; CHUNK], vec![0; CHUNK]);
    let (mut crc, mut length) = (Crc::default(), 0u32);
    loop {
        let count = from.read(&mut input)?;
        let flush = if count == 0 { TDEFLFlush::Finish } else { TDEFLFlush::None };
        crc.update(&input[..count]);
        length = length.wrapping_add(count as u32);
        let mut taken = 0;
        loop {
            let (status, read, written) = compress(&mut compressor, &input[taken..count], &mut output, flush);
            taken += read;
            to.write_all(&output[..written])?;
            match status {
                TDEFLStatus::Done => {
                    to.write_all(&crc.value().to_le_bytes())?;
                    return to.write_all(&length.to_le_bytes());
                }
                TDEFLStatus::Okay if count > 0 && taken == count && written < output.len() => break,
                TDEFLStatus::Okay => {}
                TDEFLStatus::BadParam | TDEFLStatus::PutBufFailed => {
                    return Err(io::Error::other("the compressor failed"));
                }
            }
        }
    }
}

/// The checksum of gzip.
pub struct Crc(u32);

impl Default for Crc {
    fn default() -> Crc {
        Crc(u32::MAX)
    }
}

/// What so many more bytes of nothing make of a byte, eight at a time.
const TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut n = 0;
    while n < 256 {
        let mut value = n as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { value >> 1 ^ 0xedb8_8320 } else { value >> 1 };
            bit += 1;
        }
        tables[0][n] = value;
        n += 1;
    }
    let mut table = 1;
    while table < 8 {
        n = 0;
        while n < 256 {
            let before: u32 = tables[table - 1][n];
            tables[table][n] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            n += 1;
        }
        table += 1;
    }
    tables
}

impl Crc {
    /// Takes bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        let (eights, rest) = bytes.as_chunks::<8>();
        for eight in eights {
            let [a, b, c, d, e, f, g, h] = *eight;
            let [a, b, c, d] = (u32::from_le_bytes([a, b, c, d]) ^ self.0).to_le_bytes();
            let of = |table: usize, byte: u8| TABLES[table][usize::from(byte)];
            self.0 = of(7, a) ^ of(6, b) ^ of(5, c) ^ of(4, d) ^ of(3, e) ^ of(2, f) ^ of(1, g) ^ of(0, h);
        }
        for byte in rest {
            self.0 = self.0 >> 8 ^ TABLES[0][usize::from(self.0 as u8 ^ byte)];
        }
    }

    /// Of all that was taken in.
    pub fn value(&self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn gzip_itself_reads_it() {
        let path = std::env::temp_dir().join(format!("pmx-gzip-{}", std::process::id()));
        let mut noise = 1u32;
        let mut random = Vec::new();
        while random.len() < 700_000 {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            random.push((noise >> 24) as u8);
        }
        let lines: String =
            (0..60_000).map(|n| format!("2026-01-01T00:00:00: line {n} of a log\n")).collect();
        for content in [Vec::new(), b"x".to_vec(), lines.into_bytes(), random] {
            std::fs::write(&path, &content).unwrap();
            let packed = path.with_extension("gz");
            gzip(&mut File::open(&path).unwrap(), &mut File::create(&packed).unwrap()).unwrap();
            let mut unpack = Command::new("gzip");
            unpack.arg("-dc").stdin(File::open(&packed).unwrap()).stdout(Stdio::piped());
            let output = unpack.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert!(output.stdout == content, "{} bytes", content.len());
            if content.len() > 1_000_000 {
                assert!(std::fs::metadata(&packed).unwrap().len() < content.len() as u64 / 5);
            }
            std::fs::remove_file(&packed).unwrap();
        }
        std::fs::remove_file(&path).unwrap();
        let mut crc = Crc::default();
        crc.update(b"123456789");
        assert_eq!(crc.value(), 0xcbf4_3926);
        let (mut long, mut short) = (Crc::default(), Crc::default());
        long.update(b"what is longer than eight bytes");
        b"what is longer than eight bytes".iter().for_each(|byte| short.update(&[*byte]));
        assert_eq!(long.value(), short.value());
    }
}
