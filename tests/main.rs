//! One test binary; a file per area.

mod bad_input;
mod basics;
mod boot;
#[cfg(feature = "load")]
mod cluster;
mod control;
#[cfg(feature = "load")]
mod crash;
mod daemon;
mod house;
#[cfg(feature = "load")]
mod joining;
mod lifecycle;
mod logs;
mod parity;
mod pid1;
mod pm2_dump;
#[cfg(feature = "load")]
mod reload;
mod scale;
mod simulation;
mod store;
mod support;
#[cfg(feature = "load")]
mod survival;
mod sweep;
#[cfg(feature = "load")]
mod update;
mod users;
