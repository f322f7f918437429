//! Looking for bytes, as fast as the C library does.

/// Where the first `byte` stands.
pub fn byte(byte: u8, bytes: &[u8]) -> Option<usize> {
    // SAFETY: the pointer and the length are those of one slice, which memchr only reads.
    let found = unsafe { libc::memchr(bytes.as_ptr().cast(), byte.into(), bytes.len()) };
    (!found.is_null()).then(|| found as usize - bytes.as_ptr() as usize)
}

/// Where the last `byte` stands.
pub fn last(byte: u8, bytes: &[u8]) -> Option<usize> {
    // SAFETY: as above.
    let found = unsafe { libc::memrchr(bytes.as_ptr().cast(), byte.into(), bytes.len()) };
    (!found.is_null()).then(|| found as usize - bytes.as_ptr() as usize)
}

/// Where `text` first stands.
pub fn text(text: &[u8], bytes: &[u8]) -> Option<usize> {
    // SAFETY: both pointers and lengths are those of slices, which memmem only reads.
    let found = unsafe { libc::memmem(bytes.as_ptr().cast(), bytes.len(), text.as_ptr().cast(), text.len()) };
    (!found.is_null()).then(|| found as usize - bytes.as_ptr() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_in_another() {
        for (needle, hay, at) in [
            ("b", "abc", Some(1)),
            ("bc", "abbc", Some(2)),
            ("", "x", Some(0)),
            ("abc", "ab", None),
            ("x", "", None),
        ] {
            assert_eq!(text(needle.as_bytes(), hay.as_bytes()), at, "{needle} {hay}");
        }
    }

    #[test]
    fn the_first_and_the_last() {
        for (text, first, end) in [
            (&b""[..], None, None),
            (b"abc", None, None),
            (b"\n", Some(0), Some(0)),
            (b"a\nb\nc", Some(1), Some(3)),
        ] {
            assert_eq!((byte(b'\n', text), last(b'\n', text)), (first, end), "{text:?}");
        }
    }
}
