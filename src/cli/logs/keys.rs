//! What is typed while a process is attached to: lines for its stdin.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

use crate::app::Text;
use crate::cli::act::unexpected;
use crate::cli::connect::Connection;
use crate::cli::screen::{Fail, Screen, escaped};
use crate::logs::tail::Lines;
use crate::protocol::{Answer, Verb};

/// Our stdin, and whom it is for.
pub struct Keys {
    /// Without the buffer of the library: what that holds wakes nobody.
    input: File,
    lines: Lines,
    connection: Connection,
    target: String,
}

impl Keys {
    /// For one process.
    pub fn new(connection: Connection, target: String) -> Result<Keys, Fail> {
        let input = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
        Ok(Keys { input, lines: Lines::default(), connection, target })
    }

    /// What to wait for.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    /// Takes what is there, once. False: nothing will come any more.
    pub fn take(&mut self, screen: &mut Screen<'_>) -> Result<bool, Fail> {
        let mut chunk = [0; 4096];
        let count = self.input.read(&mut chunk).map_err(failed)?;
        let mut lines = Vec::new();
        let mut emit = |line: &[u8]| {
            lines.push(line.to_vec());
            Ok::<_, Fail>(())
        };
        match count {
            0 => self.lines.finish(&mut emit)?,
            count => self.lines.feed(&chunk[..count], &mut emit)?,
        }
        for line in lines {
            self.send(screen, line)?;
        }
        Ok(count > 0)
    }

    fn send(&mut self, screen: &mut Screen<'_>, line: Vec<u8>) -> Result<(), Fail> {
        let verb = Verb::Input { targets: vec![self.target.clone()], line: Text::from(line) };
        let reason = match self.connection.request(verb, &mut |_| {}) {
            Ok(Answer::Outcomes(outcomes)) => outcomes.into_iter().find_map(|outcome| outcome.failure),
            Ok(other) => return Err(Fail::Sentence(unexpected(&other))),
            Err(error) => {
                screen.complain(&format!("not sent: {}", escaped(&String::from(error))));
                return Ok(());
            }
        };
        if let Some(failure) = reason {
            screen.complain(&format!("not sent: {}", escaped(&failure.reason)));
        }
        Ok(())
    }
}

fn failed(error: io::Error) -> Fail {
    Fail::Sentence(format!("read what is typed: {}", crate::sys::reason(&error)))
}
