//! One test binary; a file per area.

mod basics;
mod simulation;
mod support;
