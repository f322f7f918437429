//! One test binary; a file per area.

mod bad_input;
mod basics;
mod control;
mod daemon;
mod house;
mod lifecycle;
mod logs;
mod scale;
mod simulation;
mod support;
mod users;
