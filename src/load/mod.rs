//! The HTTP/1.1 load generator of `benches/` and of `pmx bench`: one thread, one poll, clients as state machines.
//! It only asks and counts; what to compare, and what to print, is the caller's.

mod chunked;
mod client;
mod clock;
mod histogram;
mod plan;
mod report;
mod response;
mod schedule;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use mio::{Events, Poll, Token};

use client::{Client, Context};
use clock::Clock;
use schedule::Schedule;

pub use histogram::Histogram;
pub use plan::{MAX_CLIENTS, Plan, Target};
pub use report::{Failure, Failures, Report};

/// How often deadlines are looked at, and so how exact timeouts are.
const SWEEP: Duration = Duration::from_millis(10);
const BUFFER: usize = 64 * 1024;

/// A load under way. Time passes for it only inside `run_…`; requests in flight at the end of one run go on in the next.
pub struct Load {
    context: Context,
    clients: Vec<Client>,
    /// Clients without a request, in the order in which they became free.
    free: VecDeque<usize>,
    schedule: Option<Schedule>,
    events: Events,
    next_sweep: Duration,
    window_start: Duration,
    /// How many requests this run may still start.
    budget: u64,
}

impl Load {
    /// Checks the plan; opens no connection yet.
    pub fn new(plan: Plan) -> io::Result<Load> {
        let request = plan.request()?;
        let poll = Poll::new()?;
        let timer = Token(plan.clients);
        let schedule = plan.rate.map(|rate| Schedule::new(rate, poll.registry(), timer)).transpose()?;
        Ok(Load {
            clients: (0..plan.clients).map(|index| Client::new(Token(index))).collect(),
            free: (0..plan.clients).collect(),
            schedule,
            events: Events::with_capacity(plan.clients + 1),
            next_sweep: Duration::ZERO,
            window_start: Duration::ZERO,
            budget: 0,
            context: Context {
                plan,
                request,
                poll,
                clock: Clock::new(),
                report: Report::default(),
                buffer: vec![0; BUFFER].into_boxed_slice(),
            },
        })
    }

    /// Keeps the load up for this long.
    pub fn run_for(&mut self, length: Duration) -> io::Result<()> {
        self.budget = u64::MAX;
        self.run(Some(length))
    }

    /// Keeps the load up while `go_on` says so; it is asked after every `slice`.
    pub fn run_while(&mut self, mut go_on: impl FnMut() -> bool, slice: Duration) -> io::Result<()> {
        while go_on() {
            self.run_for(slice)?;
        }
        Ok(())
    }

    /// Starts this many requests and waits until none is in flight: `run_requests(0)` finishes what is under way.
    pub fn run_requests(&mut self, count: u64) -> io::Result<()> {
        self.budget = count;
        self.run(None)
    }

    /// What happened since the last call (or the start).
    pub fn take_report(&mut self) -> Report {
        let now = self.context.clock.now();
        let mut report = std::mem::take(&mut self.context.report);
        report.elapsed = now.saturating_sub(self.window_start);
        report.overdue = self.schedule.as_ref().map_or(0, |schedule| schedule.overdue(now));
        self.window_start = now;
        report
    }

    fn run(&mut self, length: Option<Duration>) -> io::Result<()> {
        self.context.clock.go();
        let end = length.map(|length| self.context.clock.now() + length);
        // First of all notice which kept connections were closed while the load stood still.
        let outcome = self.poll(Duration::ZERO).and_then(|()| self.run_until(end));
        self.context.clock.stop();
        outcome
    }

    fn run_until(&mut self, end: Option<Duration>) -> io::Result<()> {
        loop {
            let now = self.context.clock.now();
            if now >= self.next_sweep {
                self.sweep(now);
            }
            self.start_due();
            if end.is_some_and(|end| now >= end)
                || (self.budget == 0 && !self.clients.iter().any(Client::has_request))
            {
                return Ok(());
            }
            let wake = end.map_or(self.next_sweep, |end| end.min(self.next_sweep));
            self.poll(wake.saturating_sub(now))?;
        }
    }

    fn poll(&mut self, timeout: Duration) -> io::Result<()> {
        if let Some(schedule) = &self.schedule
            && self.budget > 0
            && !self.free.is_empty()
        {
            schedule.arm(self.context.clock.now())?;
        }
        match self.context.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            outcome => outcome?,
        }
        // Taken out for the loop, so that the next request can start as soon as a client is free.
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            let index = event.token().0;
            if let Some(client) = self.clients.get_mut(index) {
                let was_free = client.is_free();
                client.on_event(&mut self.context, event.is_read_closed());
                if !was_free && client.is_free() {
                    self.free.push_back(index);
                    self.start_due();
                }
            }
        }
        self.events = events;
        Ok(())
    }

    fn sweep(&mut self, now: Duration) {
        self.next_sweep = now + SWEEP;
        for (index, client) in self.clients.iter_mut().enumerate() {
            let was_free = client.is_free();
            client.on_time(&mut self.context, now);
            if !was_free && client.is_free() {
                self.free.push_back(index);
            }
        }
    }

    /// Starts requests as long as one is due, allowed, and has a free client.
    fn start_due(&mut self) {
        while self.budget > 0 {
            let Some(&index) = self.free.front() else {
                return;
            };
            let now = self.context.clock.now();
            let intended = match &mut self.schedule {
                None => now,
                Some(schedule) if schedule.due() > now => return,
                Some(schedule) => {
                    let due = schedule.due();
                    schedule.advance();
                    due
                }
            };
            self.free.pop_front();
            self.budget -= 1;
            self.clients[index].start(&mut self.context, now, intended);
        }
    }
}
