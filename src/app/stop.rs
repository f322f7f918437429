//! How a child is told to end: by what, in how many steps.

use serde::{Deserialize, Serialize};

use super::App;
use crate::time::Millis;

/// How a child is told to end, beyond [`App::stop_signal`] and [`App::kill_timeout`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stop {
    /// One signal after another, in the place of the stop signal; SIGKILL follows the last.
    pub sequence: Vec<Step>,
    /// The message `shutdown` on its channel comes first, in the place of the stop signal.
    pub with_message: bool,
}

/// One step on the way to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What is sent.
    pub signal: i32,
    /// How long the child may take before the next step.
    pub wait: Millis,
}

/// What a child is told to end by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// A signal.
    Signal(i32),
    /// A message on its channel; the signal, where it has none.
    Message {
        /// Its stand-in.
        or: i32,
    },
}

/// The most steps of a sequence.
pub const STEPS_LIMIT: usize = 8;

impl App {
    /// A step on the way to the end, from 0, and how long it lasts; SIGKILL follows the last.
    pub fn stop_step(&self, step: u8) -> Option<(Notice, Millis)> {
        let Stop { sequence, with_message } = &self.stop;
        let first = match (with_message, sequence.is_empty()) {
            (true, _) => Some(Notice::Message { or: self.stop_signal }),
            (false, true) => Some(Notice::Signal(self.stop_signal)),
            (false, false) => None,
        };
        let first = first.map(|notice| (notice, self.kill_timeout));
        let rest = sequence.iter().map(|step| (Notice::Signal(step.signal), step.wait));
        first.into_iter().chain(rest).nth(usize::from(step))
    }
}

/// The number of a signal given as people write it: `SIGTERM`, `term`, `15`.
pub fn signal(text: &str) -> Option<i32> {
    let text = text.trim().to_ascii_uppercase();
    if let Ok(number) = text.parse() {
        return Some(number).filter(|number| (1..=64).contains(number));
    }
    let name = if text.starts_with("SIG") { text } else { format!("SIG{text}") };
    name.parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

/// A signal by its name, as far as it has one.
pub fn written(signal: i32) -> serde_json::Value {
    match nix::sys::signal::Signal::try_from(signal) {
        Ok(known) => known.as_str().into(),
        Err(_) => signal.into(),
    }
}

/// `SIGTERM 10s, SIGINT 5s`: the steps as people write them on one line.
pub fn sequence(text: &str) -> Option<Vec<Step>> {
    let step = |text: &str| {
        let (name, wait) = text.trim().split_once(char::is_whitespace)?;
        Some(Step { signal: signal(name)?, wait: super::units::millis(wait)? })
    };
    let steps: Option<Vec<Step>> = text.split(',').map(step).collect();
    steps.filter(|steps| steps.len() <= STEPS_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_lead_to_the_end() {
        let steps = |app: &App| (0..).map_while(|step| app.stop_step(step)).collect::<Vec<_>>();
        let mut app = App::default();
        assert_eq!(steps(&app), [(Notice::Signal(2), Millis(1_600))]);
        app.stop.with_message = true;
        assert_eq!(steps(&app), [(Notice::Message { or: 2 }, Millis(1_600))]);
        app.stop.sequence = sequence("SIGTERM 10s, int 500").unwrap();
        let rest = [(Notice::Signal(15), Millis(10_000)), (Notice::Signal(2), Millis(500))];
        assert_eq!(steps(&app)[1..], rest);
        app.stop.with_message = false;
        assert_eq!(steps(&app), rest);
        assert_eq!(app.stop_step(u8::MAX), None);
    }

    #[test]
    fn signals_and_sequences_as_people_write_them() {
        for (text, number) in [
            ("SIGTERM", Some(15)),
            ("usr2", Some(12)),
            ("9", Some(9)),
            ("0", None),
            ("SIGNO", None),
            ("", None),
        ] {
            assert_eq!(signal(text), number, "{text}");
        }
        for text in ["", "TERM", "TERM 1x", "NO 1s", "TERM 1s,", &["TERM 1s"; 9].join(",")] {
            assert_eq!(sequence(text), None, "{text}");
        }
    }
}
