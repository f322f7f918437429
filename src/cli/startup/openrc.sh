#!/sbin/openrc-run
# Written by pmx startup; what is changed here is lost with the next one. /etc/conf.d/@SERVICE@ may change it.

description="the apps of @USER@, kept by pmx"
extra_started_commands="reload"
description_reload="Replaces all apps without losing a request"

supervisor=supervise-daemon
# OpenRC has a shell read these two once more.
command=@EXE@
error_log=@LOG@
command_args="daemon --foreground --resurrect"
command_user=@USER@
respawn_delay=1
respawn_max=0
# Each app has its own time to stop in; this is for when even that did not help.
retry=SIGTERM/120/SIGKILL/5

PMX=@PMX@
PMX_HOME=@HOME@
PMX_PATH=@PATH@
PATH=$PATH:$PMX_PATH
export PATH PMX PMX_HOME

depend() {
    need localmount
    use net dns logger
    after firewall
}

start_pre() {
    checkpath --directory --mode 0700 --owner "$command_user" "$PMX_HOME"
    ulimit -n "$(ulimit -H -n)" 2>/dev/null
    return 0
}

reload() {
    ebegin "Replacing the apps of $RC_SVCNAME"
    su -s /bin/sh "$command_user" -c 'exec "$PMX" reload all'
    eend $?
}
