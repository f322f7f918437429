//! Sharing a port among workers: who gets the next connection, and which were handed over but not yet
//! taken. Pure: ids and counts, no sockets.

mod rota;

pub use rota::Rota;
