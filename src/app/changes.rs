//! Options that were given explicitly: on a command line or in a declaration. `start` lays them
//! over the defaults, `restart` and `reload` over what the process already has.

use serde::{Deserialize, Serialize};

use super::{App, Balance, Instances, Mode, SharedEnv, Text, User};
use crate::time::Millis;

/// What is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changes {
    /// [`App::name`]
    pub name: Option<String>,
    /// [`App::namespace`]
    pub namespace: Option<String>,
    /// [`super::Command::interpreter_args`]
    pub interpreter_args: Option<Vec<Text>>,
    /// [`super::Command::args`]
    pub args: Option<Vec<Text>>,
    /// [`App::cwd`]
    pub cwd: Option<Text>,
    /// [`App::inherit`], by `--update-env`.
    pub inherit: Option<SharedEnv>,
    /// [`App::instances`]; on restart and reload it has no effect (that is what `scale` is for).
    pub instances: Option<Instances>,
    /// [`App::mode`]
    pub mode: Option<Mode>,
    /// [`App::balance`]
    pub balance: Option<Balance>,
    /// [`App::out_file`]
    pub out_file: Option<Text>,
    /// [`App::error_file`]
    pub error_file: Option<Text>,
    /// [`App::merge_logs`]
    pub merge_logs: Option<bool>,
    /// [`App::wait_ready`]
    pub wait_ready: Option<bool>,
    /// [`App::listen_timeout`]
    pub listen_timeout: Option<Millis>,
    /// [`App::bake_time`]
    pub bake_time: Option<Millis>,
    /// [`App::drain_timeout`]
    pub drain_timeout: Option<Millis>,
    /// [`App::kill_timeout`]
    pub kill_timeout: Option<Millis>,
    /// [`super::RestartPolicy::autorestart`]
    pub autorestart: Option<bool>,
    /// [`super::RestartPolicy::stop_exit_codes`]
    pub stop_exit_codes: Option<Vec<i32>>,
    /// [`super::RestartPolicy::min_uptime`]
    pub min_uptime: Option<Millis>,
    /// [`super::RestartPolicy::max_restarts`]
    pub max_restarts: Option<u32>,
    /// [`super::RestartPolicy::restart_delay`]
    pub restart_delay: Option<Millis>,
    /// [`super::RestartPolicy::exp_backoff`]
    pub exp_backoff: Option<Millis>,
    /// [`App::user`]
    pub user: Option<User>,
}

impl Changes {
    /// Takes over what `above` says: the command line stands above the declaration file.
    pub fn overlay(&mut self, above: &Changes) {
        macro_rules! overlay {
            ($($field:ident),*) => {{
                // Exhaustive, so that a new option cannot be forgotten here.
                let Changes { $($field),* } = above;
                $(if $field.is_some() {
                    self.$field.clone_from($field);
                })*
            }};
        }
        overlay!(
            name,
            namespace,
            interpreter_args,
            args,
            cwd,
            inherit,
            instances,
            mode,
            balance,
            out_file,
            error_file,
            merge_logs,
            wait_ready,
            listen_timeout,
            bake_time,
            drain_timeout,
            kill_timeout,
            autorestart,
            stop_exit_codes,
            min_uptime,
            max_restarts,
            restart_delay,
            exp_backoff,
            user
        );
    }

    /// Lays the changes over `app`.
    pub fn apply(&self, app: &mut App) {
        fn set<T: Clone>(to: &mut T, from: &Option<T>) {
            if let Some(value) = from {
                to.clone_from(value);
            }
        }
        set(&mut app.name, &self.name);
        set(&mut app.namespace, &self.namespace);
        set(&mut app.command.interpreter_args, &self.interpreter_args);
        set(&mut app.command.args, &self.args);
        set(&mut app.cwd, &self.cwd);
        set(&mut app.inherit, &self.inherit);
        set(&mut app.instances, &self.instances);
        set(&mut app.mode, &self.mode);
        set(&mut app.balance, &self.balance);
        set(&mut app.merge_logs, &self.merge_logs);
        set(&mut app.wait_ready, &self.wait_ready);
        set(&mut app.listen_timeout, &self.listen_timeout);
        set(&mut app.bake_time, &self.bake_time);
        set(&mut app.drain_timeout, &self.drain_timeout);
        set(&mut app.kill_timeout, &self.kill_timeout);
        set(&mut app.restart.autorestart, &self.autorestart);
        set(&mut app.restart.stop_exit_codes, &self.stop_exit_codes);
        set(&mut app.restart.min_uptime, &self.min_uptime);
        set(&mut app.restart.max_restarts, &self.max_restarts);
        set(&mut app.restart.restart_delay, &self.restart_delay);
        set(&mut app.restart.exp_backoff, &self.exp_backoff);
        if self.out_file.is_some() {
            app.out_file.clone_from(&self.out_file);
        }
        if self.error_file.is_some() {
            app.error_file.clone_from(&self.error_file);
        }
        if self.user.is_some() {
            app.user.clone_from(&self.user);
        }
    }
}
