//! One test binary; a file per area.
