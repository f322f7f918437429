//! One test binary; a file per area.

mod basics;
mod house;
mod simulation;
mod support;
mod users;
