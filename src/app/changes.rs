//! Options that were given explicitly: on a command line or in a declaration. `start` lays them
//! over the defaults, `restart` and `reload` over what the process already has.

use serde::{Deserialize, Serialize};

use super::stop::Step;
use super::{
    Alerts, App, Balance, Budget, Dependency, Env, Filter, Health, Instances, KillMode, Limits, LogChanges,
    Mode, Readiness, SharedEnv, Stdin, Text, TriggerChanges, User,
};
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
    /// To lay over [`App::env`].
    pub env: Option<Env>,
    /// [`App::inherit`], by `--update-env`.
    pub inherit: Option<SharedEnv>,
    /// [`super::Variables::filter`]
    pub filter_env: Option<Filter>,
    /// [`super::Variables::instance`]
    pub instance_var: Option<String>,
    /// [`super::Variables::increment`]
    pub increment_var: Option<String>,
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
    /// [`App::pid_file`]
    pub pid_file: Option<Text>,
    /// [`App::logs`]
    pub logs: LogChanges,
    /// [`App::wait_ready`]
    pub wait_ready: Option<bool>,
    /// [`super::Notify::ready`]
    pub ready: Option<Readiness>,
    /// [`super::Notify::watchdog`]
    pub watchdog: Option<Millis>,
    /// [`App::health`]
    pub health: Option<Box<Health>>,
    /// [`App::listen_timeout`]
    pub listen_timeout: Option<Millis>,
    /// [`App::bake_time`]
    pub bake_time: Option<Millis>,
    /// [`App::drain_timeout`]
    pub drain_timeout: Option<Millis>,
    /// [`App::kill_timeout`]
    pub kill_timeout: Option<Millis>,
    /// [`App::stop_signal`]
    pub stop_signal: Option<i32>,
    /// [`super::Stop::sequence`]
    pub stop_sequence: Option<Vec<Step>>,
    /// [`super::Stop::with_message`]
    pub shutdown_with_message: Option<bool>,
    /// [`App::kill_mode`]
    pub kill_mode: Option<KillMode>,
    /// [`App::depends_on`]
    pub depends_on: Option<Vec<Dependency>>,
    /// [`App::stdin`]
    pub stdin: Option<Stdin>,
    /// [`super::Hooks::pre_start`]; an empty one is none.
    pub pre_start: Option<String>,
    /// [`super::Hooks::post_stop`]; an empty one is none.
    pub post_stop: Option<String>,
    /// [`super::Hooks::timeout`]
    pub hook_timeout: Option<Millis>,
    /// [`App::on`]
    pub on: Option<Alerts>,
    /// [`App::post_update`]
    pub post_update: Option<Vec<String>>,
    /// [`App::autostart`]
    pub autostart: Option<bool>,
    /// [`super::RestartPolicy::autorestart`]
    pub autorestart: Option<bool>,
    /// [`super::RestartPolicy::stop_exit_codes`]
    pub stop_exit_codes: Option<Vec<i32>>,
    /// [`super::RestartPolicy::min_uptime`]
    pub min_uptime: Option<Millis>,
    /// [`super::RestartPolicy::max_restarts`]
    pub max_restarts: Option<Budget>,
    /// [`super::RestartPolicy::restart_window`]
    pub restart_window: Option<Millis>,
    /// [`super::RestartPolicy::restart_delay`]
    pub restart_delay: Option<Millis>,
    /// [`super::RestartPolicy::exp_backoff`]
    pub exp_backoff: Option<Millis>,
    /// [`App::triggers`]
    pub triggers: TriggerChanges,
    /// [`App::user`]
    pub user: Option<User>,
    /// [`App::limits`]
    pub limits: Option<Limits>,
    /// [`App::umask`]
    pub umask: Option<u32>,
    /// [`super::Privileges::no_new_privs`]
    pub no_new_privs: Option<bool>,
    /// [`super::Privileges::capabilities`]
    pub capabilities: Option<Vec<u32>>,
}

impl Changes {
    /// Takes over what `above` says: the command line stands above the declaration file.
    pub fn overlay(&mut self, above: &Changes) {
        macro_rules! overlay {
            ($($field:ident),*) => {{
                // Exhaustive, so that a new option cannot be forgotten here.
                let Changes { $($field),*, triggers, logs } = above;
                self.logs.overlay(logs);
                self.triggers.overlay(triggers);
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
            env,
            inherit,
            filter_env,
            instance_var,
            increment_var,
            instances,
            mode,
            balance,
            out_file,
            error_file,
            merge_logs,
            pid_file,
            wait_ready,
            ready,
            watchdog,
            health,
            listen_timeout,
            bake_time,
            drain_timeout,
            kill_timeout,
            stop_signal,
            stop_sequence,
            shutdown_with_message,
            kill_mode,
            depends_on,
            stdin,
            pre_start,
            post_stop,
            hook_timeout,
            on,
            post_update,
            autostart,
            autorestart,
            stop_exit_codes,
            min_uptime,
            max_restarts,
            restart_window,
            restart_delay,
            exp_backoff,
            user,
            limits,
            umask,
            no_new_privs,
            capabilities
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
        if let Some(env) = &self.env {
            app.env.0.extend(env.0.clone());
        }
        set(&mut app.inherit, &self.inherit);
        set(&mut app.variables.filter, &self.filter_env);
        if self.instance_var.is_some() {
            app.variables.instance.clone_from(&self.instance_var);
        }
        if self.increment_var.is_some() {
            app.variables.increment.clone_from(&self.increment_var);
        }
        set(&mut app.instances, &self.instances);
        set(&mut app.mode, &self.mode);
        self.triggers.apply(&mut app.triggers);
        self.logs.apply(&mut app.logs);
        set(&mut app.balance, &self.balance);
        set(&mut app.merge_logs, &self.merge_logs);
        set(&mut app.wait_ready, &self.wait_ready);
        set(&mut app.notify.watchdog, &self.watchdog);
        if self.ready.is_some() {
            app.notify.ready = self.ready;
        }
        if self.health.is_some() {
            app.health.clone_from(&self.health);
        }
        set(&mut app.listen_timeout, &self.listen_timeout);
        set(&mut app.bake_time, &self.bake_time);
        set(&mut app.drain_timeout, &self.drain_timeout);
        set(&mut app.kill_timeout, &self.kill_timeout);
        set(&mut app.stop_signal, &self.stop_signal);
        set(&mut app.stop.sequence, &self.stop_sequence);
        set(&mut app.stop.with_message, &self.shutdown_with_message);
        set(&mut app.kill_mode, &self.kill_mode);
        set(&mut app.depends_on, &self.depends_on);
        set(&mut app.stdin, &self.stdin);
        for (hook, line) in
            [(&mut app.hooks.pre_start, &self.pre_start), (&mut app.hooks.post_stop, &self.post_stop)]
        {
            if let Some(line) = line {
                *hook = Some(line.clone()).filter(|line| !line.trim().is_empty());
            }
        }
        set(&mut app.hooks.timeout, &self.hook_timeout);
        set(&mut app.on, &self.on);
        set(&mut app.post_update, &self.post_update);
        set(&mut app.autostart, &self.autostart);
        set(&mut app.restart.autorestart, &self.autorestart);
        set(&mut app.restart.stop_exit_codes, &self.stop_exit_codes);
        set(&mut app.restart.min_uptime, &self.min_uptime);
        set(&mut app.restart.max_restarts, &self.max_restarts);
        set(&mut app.restart.restart_window, &self.restart_window);
        set(&mut app.restart.restart_delay, &self.restart_delay);
        set(&mut app.restart.exp_backoff, &self.exp_backoff);
        set(&mut app.limits, &self.limits);
        set(&mut app.umask, &self.umask);
        if self.no_new_privs.is_some() {
            app.privileges.no_new_privs = self.no_new_privs;
        }
        if self.capabilities.is_some() {
            app.privileges.capabilities.clone_from(&self.capabilities);
        }
        if self.out_file.is_some() {
            app.out_file.clone_from(&self.out_file);
        }
        if self.error_file.is_some() {
            app.error_file.clone_from(&self.error_file);
        }
        if self.pid_file.is_some() {
            app.pid_file.clone_from(&self.pid_file);
        }
        if self.user.is_some() {
            app.user.clone_from(&self.user);
        }
    }
}
