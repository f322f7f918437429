//! What is on the screen, and what keys do to it.

use std::collections::{BTreeMap, VecDeque};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::host::Host;
use super::tails::Tails;
use crate::protocol::{Detail, View};
use crate::time::Wall;

/// How many looks are remembered of a process.
const PAST: usize = 60;

/// What is asked of the loop.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// It is over.
    Leave,
    /// Another process is looked at.
    Look,
    /// A command.
    Do(Deed),
}

/// A command of pmx: its words, and how it is called on the screen.
#[derive(Clone, Debug, PartialEq)]
pub struct Deed {
    pub words: Vec<String>,
    pub name: String,
}

/// What keys mean at the moment.
#[derive(Clone, Debug, PartialEq)]
pub enum Mode {
    Look,
    /// A part of the names that are shown is typed.
    Filter,
    /// A part of the log lines that are shown is typed.
    Search,
    /// How many instances there should be is typed.
    Scale(String),
    /// `y` does it.
    Confirm(Deed),
    Help,
}

/// By what processes are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Id,
    Name,
    Cpu,
    Memory,
    Restarts,
}

impl Order {
    pub fn word(self) -> &'static str {
        match self {
            Order::Id => "id",
            Order::Name => "name",
            Order::Cpu => "cpu",
            Order::Memory => "memory",
            Order::Restarts => "restarts",
        }
    }

    fn next(self) -> Order {
        match self {
            Order::Id => Order::Name,
            Order::Name => Order::Cpu,
            Order::Cpu => Order::Memory,
            Order::Memory => Order::Restarts,
            Order::Restarts => Order::Id,
        }
    }
}

/// All that is shown.
pub struct State {
    all: Vec<View>,
    /// Processor time at the last looks, newest last.
    past: BTreeMap<u32, VecDeque<f32>>,
    selected: Option<u32>,
    pub facts: Option<Detail>,
    pub tails: Tails,
    pub host: Host,
    pub order: Order,
    pub filter: String,
    pub search: String,
    pub mode: Mode,
    /// How many lines of the logs lie below the window.
    pub scroll: usize,
    /// The last that is to be said, and whether it is bad.
    pub message: Option<(String, bool)>,
    pub color: bool,
    pub now: Wall,
}

impl State {
    pub fn new(color: bool) -> State {
        State {
            all: Vec::new(),
            past: BTreeMap::new(),
            selected: None,
            facts: None,
            tails: Tails::default(),
            host: Host::default(),
            order: Order::Id,
            filter: String::new(),
            search: String::new(),
            mode: Mode::Look,
            scroll: 0,
            message: None,
            color,
            now: Wall(0),
        }
    }

    /// A new list.
    pub fn views(&mut self, views: Vec<View>, now: Wall) {
        self.now = now;
        if self.message.as_ref().is_some_and(|(text, _)| text.starts_with("the daemon:")) {
            self.message = None;
        }
        self.past.retain(|id, _| views.iter().any(|view| view.id == *id));
        for view in &views {
            let past = self.past.entry(view.id).or_default();
            past.push_back(view.cpu.unwrap_or(0.0));
            if past.len() > PAST {
                past.pop_front();
            }
        }
        self.all = views;
        self.hold_on();
    }

    /// Somebody is selected as long as there is anybody.
    fn hold_on(&mut self) {
        let shown: Vec<u32> = self.shown().iter().map(|view| view.id).collect();
        if !self.selected.is_some_and(|id| shown.contains(&id)) {
            self.selected = shown.first().copied();
        }
    }

    /// The facts of the selected process.
    pub fn detail(&mut self, detail: Option<Detail>) {
        let files = detail.as_ref().map(|d| (d.view.id, d.out_file.as_str(), d.error_file.as_str()));
        self.tails.follow(files);
        self.facts = detail;
    }

    /// The daemon gave no answer.
    pub fn problem(&mut self, reason: String) {
        self.message = Some((format!("the daemon: {reason}"), true));
    }

    /// A command has ended.
    pub fn done(&mut self, deed: &Deed, outcome: Result<(), String>) {
        self.message = Some(match outcome {
            Ok(()) => (format!("{}: done", deed.name), false),
            Err(reason) => (reason, true),
        });
    }

    /// Everybody.
    pub fn all(&self) -> &[View] {
        &self.all
    }

    /// Those that pass the filter, in their order.
    pub fn shown(&self) -> Vec<&View> {
        let wanted = self.filter.to_lowercase();
        let passes = |view: &&View| {
            [&view.name, &view.namespace].iter().any(|word| word.to_lowercase().contains(&wanted))
        };
        let mut shown: Vec<&View> = self.all.iter().filter(passes).collect();
        match self.order {
            Order::Id => shown.sort_by_key(|view| view.id),
            Order::Name => shown.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id))),
            Order::Cpu => shown.sort_by(|a, b| b.cpu.unwrap_or(0.0).total_cmp(&a.cpu.unwrap_or(0.0))),
            Order::Memory => shown.sort_by_key(|view| (std::cmp::Reverse(view.memory), view.id)),
            Order::Restarts => shown.sort_by_key(|view| (std::cmp::Reverse(view.restarts), view.id)),
        }
        shown
    }

    /// The selected process.
    pub fn selected(&self) -> Option<u32> {
        self.selected
    }

    fn view(&self) -> Option<&View> {
        self.all.iter().find(|view| Some(view.id) == self.selected)
    }

    /// Processor time of a process at the last looks.
    pub fn past(&self, id: u32) -> impl DoubleEndedIterator<Item = f32> + '_ {
        self.past.get(&id).into_iter().flatten().copied()
    }

    /// Log lines that pass the search.
    pub fn lines(&self) -> Vec<&(bool, String)> {
        let wanted = self.search.to_lowercase();
        self.tails.lines().filter(|(_, line)| line.to_lowercase().contains(&wanted)).collect()
    }

    /// A key was typed.
    pub fn key(&mut self, key: KeyEvent) -> Option<Step> {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return (key.code == KeyCode::Char('c')).then_some(Step::Leave);
        }
        match std::mem::replace(&mut self.mode, Mode::Look) {
            Mode::Look => self.look_key(key.code),
            Mode::Help => None,
            Mode::Confirm(deed) => (key.code == KeyCode::Char('y')).then(|| self.begin(deed)),
            Mode::Filter => {
                self.mode = if type_into(&mut self.filter, key.code) { Mode::Filter } else { Mode::Look };
                self.hold_on();
                Some(Step::Look)
            }
            Mode::Search => {
                self.mode = if type_into(&mut self.search, key.code) { Mode::Search } else { Mode::Look };
                self.scroll = 0;
                None
            }
            Mode::Scale(mut number) => match key.code {
                KeyCode::Enter => self.scale(&number),
                KeyCode::Esc => None,
                code => {
                    type_into(&mut number, code);
                    self.mode = Mode::Scale(number);
                    None
                }
            },
        }
    }

    fn look_key(&mut self, code: KeyCode) -> Option<Step> {
        let page = 10;
        match code {
            KeyCode::Char('q') => return Some(Step::Leave),
            KeyCode::Esc if self.filter.is_empty() && self.search.is_empty() => return Some(Step::Leave),
            KeyCode::Esc => {
                self.filter.clear();
                self.search.clear();
            }
            KeyCode::Up | KeyCode::Char('k') => return self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => return self.step(1),
            KeyCode::Home | KeyCode::Char('g') => return self.step(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => return self.step(isize::MAX),
            KeyCode::PageUp => self.scroll = (self.scroll + page).min(self.lines().len()),
            KeyCode::PageDown => self.scroll = self.scroll.saturating_sub(page),
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char('f') => self.mode = Mode::Search,
            KeyCode::Char('o') => self.order = self.order.next(),
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            KeyCode::Char('r') => return self.act("restart"),
            KeyCode::Char('l') => return self.act("reload"),
            KeyCode::Char('s') => return self.act("stop"),
            KeyCode::Char('+') => return self.scale("+1"),
            KeyCode::Char('-') => return self.scale("-1"),
            KeyCode::Char('=') if self.selected.is_some() => self.mode = Mode::Scale(String::new()),
            KeyCode::Char('d') => {
                if let Some(deed) = self.deed("delete") {
                    self.mode = Mode::Confirm(deed);
                }
            }
            _ => {}
        }
        None
    }

    fn step(&mut self, by: isize) -> Option<Step> {
        let shown: Vec<u32> = self.shown().iter().map(|view| view.id).collect();
        let at = shown.iter().position(|id| Some(*id) == self.selected)?;
        let to = at.saturating_add_signed(by).min(shown.len() - 1);
        self.selected = Some(shown[to]);
        self.scroll = 0;
        Some(Step::Look)
    }

    fn deed(&self, verb: &str) -> Option<Deed> {
        let view = self.view()?;
        let words = vec![verb.to_string(), crate::protocol::by_id(view.id)];
        Some(Deed { words, name: format!("{verb} {}({})", view.name, view.id) })
    }

    fn act(&mut self, verb: &str) -> Option<Step> {
        let deed = self.deed(verb)?;
        Some(self.begin(deed))
    }

    fn scale(&mut self, to: &str) -> Option<Step> {
        let name = self.view()?.name.clone();
        let words = ["scale", &name, to].map(String::from).to_vec();
        Some(self.begin(Deed { words, name: format!("scale {name} {to}") }))
    }

    fn begin(&mut self, deed: Deed) -> Step {
        self.message = Some((format!("{} …", deed.name), false));
        Step::Do(deed)
    }
}

/// Types into a line. False: it is finished.
fn type_into(text: &mut String, code: KeyCode) -> bool {
    match code {
        KeyCode::Char(letter) => text.push(letter),
        KeyCode::Backspace => drop(text.pop()),
        KeyCode::Esc => text.clear(),
        _ => {}
    }
    !matches!(code, KeyCode::Esc | KeyCode::Enter)
}
