//! What a line of a log says of itself: when it was written, and how grave it is. Pure: lines are bytes, and what the
//! clocks of this machine show is looked up elsewhere.

pub mod fields;
pub mod level;
pub mod stamp;

pub use level::Level;
pub use stamp::Stamp;
