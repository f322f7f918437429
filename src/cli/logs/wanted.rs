//! Which lines of logs are wanted, and in which form, as somebody says it.

use crate::app::line::Level;
use crate::logs::moment::Moment;
use crate::logs::pattern::Pattern;
use crate::logs::scan::Query;
use crate::time::Wall;

/// What is said about the lines of logs.
#[derive(Debug, Default, PartialEq)]
pub struct Wanted {
    pub since: Option<Moment>,
    pub until: Option<Moment>,
    pub level: Option<Level>,
    pub grep: Option<String>,
    pub fixed: bool,
    pub ignore_case: bool,
    /// The form of the time before each line.
    pub date: Option<String>,
    pub highlight: Option<String>,
    /// Lines are printed as `name=value`.
    pub fields: bool,
}

impl Wanted {
    /// What to look for, seen from now.
    pub fn query(&self, now: Wall) -> Result<Query, String> {
        let pattern = self.grep.as_ref().map(|text| match self.fixed {
            true => Ok(Pattern::fixed(text, self.ignore_case)),
            false => Pattern::new(text, self.ignore_case),
        });
        let pattern = pattern.transpose().map_err(|error| {
            format!(
                "--grep {}: {} (--fixed takes it as text)",
                self.grep.as_deref().unwrap_or(""),
                one_line(&error)
            )
        })?;
        Ok(Query {
            since: self.since.map(|moment| moment.wall(now)),
            until: self.until.map(|moment| moment.wall(now)),
            level: self.level,
            pattern,
        })
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
