//! Frames: a byte that tells the version and how many arguments follow, then each with its length in front.

use serde_json::Value;

/// The longest frame that is taken in.
pub const FRAME_LIMIT: usize = 16 << 20;
/// The version of the format, in the upper half of the first byte.
const VERSION: u8 = 1;

/// One argument.
#[derive(Clone, Debug, PartialEq)]
pub enum Arg {
    /// A string.
    Text(String),
    /// A value.
    Json(Value),
    /// Bytes without a meaning.
    Blob(Vec<u8>),
}

/// What came is no frame. Nothing after it can be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Another version, or another protocol.
    Version(u8),
    /// Longer than [`FRAME_LIMIT`].
    Long,
    /// An argument that says it is a string or JSON, and is not.
    Argument,
}

/// Puts bytes together to frames, however they were cut.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    /// Takes in what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame.
    pub fn next_frame(&mut self) -> Result<Option<Vec<Arg>>, Fault> {
        let Some((&first, mut rest)) = self.bytes.split_first() else {
            self.bytes = Vec::new();
            return Ok(None);
        };
        if first >> 4 != VERSION {
            return Err(Fault::Version(first >> 4));
        }
        let mut pieces = Vec::new();
        let mut total = 1;
        for _ in 0..first & 0x0f {
            let Some((length, after)) = rest.split_first_chunk::<4>() else { return self.unfinished() };
            let length = u32::from_be_bytes(*length) as usize;
            total += 4 + length;
            if length > FRAME_LIMIT || total > FRAME_LIMIT {
                return Err(Fault::Long);
            }
            let Some((piece, after)) = after.split_at_checked(length) else { return self.unfinished() };
            pieces.push(piece);
            rest = after;
        }
        let arguments = pieces.into_iter().map(argument).collect::<Result<Vec<Arg>, Fault>>()?;
        self.bytes.drain(..total);
        Ok(Some(arguments))
    }

    fn unfinished(&self) -> Result<Option<Vec<Arg>>, Fault> {
        if self.bytes.len() > FRAME_LIMIT { Err(Fault::Long) } else { Ok(None) }
    }
}

fn argument(bytes: &[u8]) -> Result<Arg, Fault> {
    match bytes {
        [b's', b':', text @ ..] => {
            String::from_utf8(text.to_vec()).map(Arg::Text).map_err(|_| Fault::Argument)
        }
        [b'j', b':', json @ ..] => serde_json::from_slice(json).map(Arg::Json).map_err(|_| Fault::Argument),
        _ => Ok(Arg::Blob(bytes.to_vec())),
    }
}

/// A frame of at most 15 arguments, as it goes over the wire.
pub fn frame(arguments: &[Arg]) -> Vec<u8> {
    debug_assert!(arguments.len() < 16);
    let mut bytes = vec![VERSION << 4 | arguments.len() as u8];
    for argument in arguments {
        let payload = match argument {
            Arg::Text(text) => [b"s:", text.as_bytes()].concat(),
            Arg::Json(value) => [b"j:", value.to_string().as_bytes()].concat(),
            Arg::Blob(blob) => blob.clone(),
        };
        bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&payload);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn frames_come_out_however_the_bytes_went_in() {
        let sent = [
            vec![Arg::Json(json!({"type": "call"})), Arg::Text("7:0".into())],
            vec![],
            vec![Arg::Blob(vec![0, 255]), Arg::Text("é".into())],
        ];
        let bytes: Vec<u8> = sent.iter().flat_map(|arguments| frame(arguments)).collect();
        assert_eq!(&bytes[..5], [0x12, 0, 0, 0, 17]);
        for chunk in 1..bytes.len() {
            let mut frames = Frames::default();
            let mut found = Vec::new();
            for piece in bytes.chunks(chunk) {
                frames.push(piece);
                while let Some(arguments) = frames.next_frame().unwrap() {
                    found.push(arguments);
                }
            }
            assert_eq!(found, sent, "chunks of {chunk}");
        }
    }

    #[test]
    fn what_is_no_frame_is_a_fault_and_random_bytes_never_panic() {
        let next = |bytes: &[u8]| {
            let mut frames = Frames::default();
            frames.push(bytes);
            frames.next_frame()
        };
        assert_eq!(next(b"GET / HTTP/1.1"), Err(Fault::Version(4)));
        assert_eq!(next(&[0x11, 255, 255, 255, 255]), Err(Fault::Long));
        assert_eq!(next(&[0x11, 0, 0, 0, 3, b'j', b':', b'{']), Err(Fault::Argument));
        assert_eq!(next(&[0x11, 0, 0, 0, 3, b's', b':', 0xff]), Err(Fault::Argument));
        assert_eq!(next(&[0x11, 0, 0, 0, 9, b's']), Ok(None));
        let mut state = 7u64;
        for _ in 0..10_000 {
            let mut bytes = vec![0x10 | (state >> 60) as u8];
            for _ in 0..state % 40 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                bytes.push(if state >> 62 == 0 { (state >> 33) as u8 } else { 0 });
            }
            state = state.wrapping_add(1);
            let _ = next(&bytes);
        }
    }
}
