//! One test binary; a file per area.

mod bad_input;
mod basics;
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
#[cfg(feature = "load")]
mod reload;
mod scale;
mod simulation;
mod support;
mod users;
