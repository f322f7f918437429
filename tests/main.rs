//! One test binary; a file per area.

mod basics;
mod cluster;
mod crash;
mod house;
mod reload;
mod simulation;
mod support;
