//! Strings as the kernel has them: paths, arguments and environment values are bytes, not UTF-8.
//! On the wire a `Text` is a JSON string where that loses nothing, else an array of its bytes.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeSeq, Serializer};

/// A byte string that is usually UTF-8.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(pub OsString);

impl Text {
    /// The bytes as they are.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// As a path.
    pub fn path(&self) -> &Path {
        Path::new(&self.0)
    }

    /// For people: invalid UTF-8 replaced.
    pub fn lossy(&self) -> std::borrow::Cow<'_, str> {
        self.0.to_string_lossy()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string_lossy())
    }
}

impl<T: AsRef<OsStr> + ?Sized> From<&T> for Text {
    fn from(value: &T) -> Text {
        Text(value.as_ref().to_os_string())
    }
}

impl AsRef<OsStr> for Text {
    fn as_ref(&self) -> &OsStr {
        &self.0
    }
}

impl From<OsString> for Text {
    fn from(value: OsString) -> Text {
        Text(value)
    }
}

impl From<String> for Text {
    fn from(value: String) -> Text {
        Text(value.into())
    }
}

impl From<Vec<u8>> for Text {
    fn from(value: Vec<u8>) -> Text {
        Text(OsString::from_vec(value))
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.to_str() {
            Some(text) => serializer.serialize_str(text),
            None => serializer.collect_seq(self.bytes()),
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of bytes")
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Text, E> {
                Ok(Text(value.into()))
            }
            fn visit_string<E: de::Error>(self, value: String) -> Result<Text, E> {
                Ok(Text(value.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Text, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element::<u8>()? {
                    bytes.push(byte);
                }
                Ok(Text::from(bytes))
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

/// Environment variables, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Env(pub BTreeMap<Text, Text>);

impl Borrow<OsStr> for Text {
    fn borrow(&self) -> &OsStr {
        &self.0
    }
}

impl Env {
    /// The value of `name`, if it is set.
    pub fn get(&self, name: &str) -> Option<&Text> {
        self.0.get(OsStr::new(name))
    }

    /// Sets `name` to `value`, replacing what was there.
    pub fn set(&mut self, name: impl Into<Text>, value: impl Into<Text>) {
        self.0.insert(name.into(), value.into());
    }
}

impl FromIterator<(OsString, OsString)> for Env {
    fn from_iter<I: IntoIterator<Item = (OsString, OsString)>>(pairs: I) -> Env {
        Env(pairs.into_iter().map(|(name, value)| (Text(name), Text(value))).collect())
    }
}

/// As a list of `NAME=value`, the kernel's own form, because a name need not be UTF-8 either.
impl Serialize for Env {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            let mut pair = name.bytes().to_vec();
            pair.push(b'=');
            pair.extend_from_slice(value.bytes());
            seq.serialize_element(&Text::from(pair))?;
        }
        seq.end()
    }
}

impl<'de> Deserialize<'de> for Env {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Env, D::Error> {
        let mut env = Env::default();
        for pair in Vec::<Text>::deserialize(deserializer)? {
            let bytes = pair.bytes();
            let Some(at) = bytes.iter().position(|&b| b == b'=').filter(|&at| at > 0) else {
                return Err(de::Error::custom("an environment entry needs NAME=value"));
            };
            if bytes.contains(&0) {
                return Err(de::Error::custom("an environment entry cannot hold a NUL byte"));
            }
            env.0.insert(Text::from(bytes[..at].to_vec()), Text::from(bytes[at + 1..].to_vec()));
        }
        Ok(env)
    }
}

/// An environment that many apps share: the one of the shell they were started from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedEnv(pub Arc<Env>);

impl SharedEnv {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.0.is_empty()
    }
}

impl Serialize for SharedEnv {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SharedEnv {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SharedEnv, D::Error> {
        Ok(SharedEnv(Arc::new(Env::deserialize(deserializer)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_the_wire_whatever_its_bytes() {
        for bytes in [&b"plain"[..], b"caf\xc3\xa9 \"x\"\n", b"\xff\xfe", b""] {
            let text = Text::from(bytes.to_vec());
            let wire = serde_json::to_string(&text).unwrap();
            assert_eq!(serde_json::from_str::<Text>(&wire).unwrap(), text, "{wire}");
        }
        assert_eq!(serde_json::to_string(&Text::from(b"\xff".to_vec())).unwrap(), "[255]");
    }

    #[test]
    fn env_survives_the_wire_and_refuses_nonsense() {
        let mut env = Env::default();
        env.set("A", "1=2");
        env.set("EMPTY", "");
        let wire = serde_json::to_string(&env).unwrap();
        assert_eq!(wire, r#"["A=1=2","EMPTY="]"#);
        assert_eq!(serde_json::from_str::<Env>(&wire).unwrap(), env);
        assert!(serde_json::from_str::<Env>(r#"["novalue"]"#).is_err());
        assert!(serde_json::from_str::<Env>(r#"["=x"]"#).is_err());
        assert!(serde_json::from_str::<Env>(r#"["A=\u0000"]"#).is_err());
    }
}
