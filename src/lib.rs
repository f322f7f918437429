//! pmx: a process manager for Linux. One thread, one epoll, decisions apart from syscalls.
//!
//! The map. Imports go down only, and `tests/house.rs` holds the code to the right-hand column:
//!
//! | module       | what it is for                                                      | may import |
//! |--------------|---------------------------------------------------------------------|------------|
//! | `time`       | points in time as plain numbers                                     | nothing |
//! | `app`        | what the user declares: `App`, declaration files, units, commands   | time |
//! | `cluster`    | sharing a port: listener keys, who gets the next connection         | time |
//! | `node`       | Node's IPC and cluster wire formats, and the preload it runs        | time |
//! | `protocol`   | the control protocol, shared by daemon and clients                  | app, time |
//! | `pm2`        | what pm2's own client speaks: frames, calls, events                 | app, protocol, time |
//! | `supervisor` | the decisions: `handle(now, Input) -> Actions`                      | app, protocol, time |
//! | `sys`        | the kernel; the only `unsafe`                                       | time |
//! | `daemon`     | the shell around the decisions: the event loop                      | app, cluster, node, protocol, supervisor, sys, time |
//! | `keeper`     | above the daemon: holds its fds and children, starts the next one   | sys, time |
//! | `load`       | the HTTP load generator                                             | sys, time |
//! | `logs`       | reads log files: old ones too, by time, and what is appended          | app, sys, time |
//! | `cli`        | parse, talk to the daemon, print                                    | app, logs, pm2, protocol, load, sys, time |
//! | `web`        | the web front: API, metrics and dashboard, a client of the daemon   | app, logs, pm2, protocol, sys, time |
//! | `main`       | argv: keeper and daemon, web, or cli                                | cli, daemon, keeper, sys, web |

#![warn(missing_docs)]

pub mod app;
pub mod cli;
pub mod cluster;
pub mod daemon;
pub mod keeper;
#[cfg(feature = "load")]
pub mod load;
pub mod logs;
pub mod node;
pub mod pm2;
pub mod protocol;
pub mod supervisor;
pub mod sys;
pub mod time;
#[cfg(feature = "web")]
pub mod web;
