//! One test binary; a file per area.

mod simulation;
