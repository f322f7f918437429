//! What becomes of the output of an app: the form of its lines and the files they go to. Pure.

use serde::{Deserialize, Serialize};

use super::{Format, Rotation, Text};

/// pm2's format for `time`.
pub const TIME: &str = "YYYY-MM-DDTHH:mm:ss";

/// What becomes of output.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Logs {
    /// The date in front of each line, see [`super::DateFormat`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// What a line becomes.
    pub format: Format,
    /// One file for stdout and stderr together, beside theirs.
    #[serde(skip_serializing_if = "Combined::is_none")]
    pub combined: Combined,
    /// Nothing is written.
    pub disabled: bool,
    /// What happens while there is no room.
    pub full: Full,
    /// When another file begins, and which old ones are kept.
    #[serde(skip_serializing_if = "is_unsaid")]
    pub rotation: Rotation,
}

fn is_unsaid(rotation: &Rotation) -> bool {
    *rotation == Rotation::default()
}

/// A file for both streams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Combined {
    /// There is none.
    #[default]
    None,
    /// The one beside the others.
    Usual,
    /// This one.
    File(Text),
}

impl Combined {
    fn is_none(&self) -> bool {
        *self == Combined::None
    }
}

/// What happens to output while its disk is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Full {
    /// It is counted and lost: the app goes on.
    #[default]
    Drop,
    /// It waits, and so does the app as soon as its pipe is full.
    Block,
}

impl Full {
    /// As people write it.
    pub fn named(name: &str) -> Option<Full> {
        [Full::Drop, Full::Block].into_iter().find(|full| full.word() == name)
    }

    /// As people read it.
    pub fn word(self) -> &'static str {
        match self {
            Full::Drop => "drop",
            Full::Block => "block",
        }
    }
}

impl Logs {
    /// Whether nothing was said.
    pub fn is_usual(&self) -> bool {
        *self == Logs::default()
    }
}

/// What was said of it. `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogChanges {
    /// [`Logs::date`]; empty: none.
    pub date: Option<String>,
    /// [`Logs::format`]
    pub format: Option<Format>,
    /// [`Logs::combined`]
    pub combined: Option<Combined>,
    /// [`Logs::disabled`]
    pub disabled: Option<bool>,
    /// [`Logs::full`]
    pub full: Option<Full>,
    /// [`Logs::rotation`]
    pub rotation: Option<Rotation>,
}

impl LogChanges {
    /// Takes over what `above` says.
    pub fn overlay(&mut self, above: &LogChanges) {
        fn lay<T: Clone>(under: &mut Option<T>, above: &Option<T>) {
            if above.is_some() {
                under.clone_from(above);
            }
        }
        // Exhaustive, so that a new one cannot be forgotten here.
        let LogChanges { date, format, combined, disabled, full, rotation } = above;
        lay(&mut self.date, date);
        lay(&mut self.format, format);
        lay(&mut self.combined, combined);
        lay(&mut self.disabled, disabled);
        lay(&mut self.full, full);
        lay(&mut self.rotation, rotation);
    }

    /// Lays it over what is.
    pub fn apply(&self, to: &mut Logs) {
        if let Some(date) = &self.date {
            to.date = Some(date.clone()).filter(|date| !date.is_empty());
        }
        to.format = self.format.unwrap_or(to.format);
        if let Some(combined) = &self.combined {
            to.combined.clone_from(combined);
        }
        to.disabled = self.disabled.unwrap_or(to.disabled);
        to.full = self.full.unwrap_or(to.full);
        if let Some(rotation) = &self.rotation {
            to.rotation.clone_from(rotation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_last_holds_and_nothing_can_be_said() {
        let mut logs = Logs::default();
        let said = LogChanges {
            date: Some(TIME.to_string()),
            format: Some(Format::Json),
            combined: Some(Combined::Usual),
            disabled: Some(true),
            full: Some(Full::Block),
            rotation: Some(Rotation { retain: Some(2), ..Rotation::default() }),
        };
        let mut below = LogChanges { date: Some("x".to_string()), ..LogChanges::default() };
        below.overlay(&said);
        assert_eq!(below, said);
        below.apply(&mut logs);
        assert_eq!((logs.date.as_deref(), logs.format, logs.full), (Some(TIME), Format::Json, Full::Block));
        assert!(logs.disabled && logs.combined == Combined::Usual && !logs.is_usual());
        let off = LogChanges {
            date: Some(String::new()),
            format: Some(Format::Raw),
            combined: Some(Combined::None),
            disabled: Some(false),
            full: Full::named("drop"),
            rotation: Some(Rotation::default()),
        };
        off.apply(&mut logs);
        assert!(logs.is_usual());
        assert_eq!(Full::named("wait"), None);
    }
}
