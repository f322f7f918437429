//! One test binary; a file per area.

mod alerts;
mod apply;
mod bad_input;
mod basics;
mod boot;
mod bus;
mod checklist;
#[cfg(feature = "load")]
mod cluster;
mod contain;
mod control;
#[cfg(feature = "load")]
mod crash;
mod daemon;
mod declare;
mod depends;
mod deploy;
mod environment;
mod fields;
#[cfg(feature = "load")]
mod health;
mod hooks;
mod house;
mod insight;
#[cfg(feature = "load")]
mod joining;
mod lifecycle;
mod logs;
#[cfg(feature = "monit")]
mod monit;
mod notify;
mod parity;
mod past;
mod pid1;
mod pm2_client;
mod pm2_dump;
mod random;
mod reading;
#[cfg(feature = "load")]
mod reload;
mod revision;
mod rotation;
mod scale;
mod serve;
mod shell;
mod simulation;
mod stdin;
mod stopping;
mod store;
mod support;
#[cfg(feature = "load")]
mod survival;
mod sweep;
mod triggers;
#[cfg(feature = "load")]
mod update;
mod users;
mod verbs;
#[cfg(feature = "web")]
mod web;
