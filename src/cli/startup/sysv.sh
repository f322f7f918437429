#!/bin/sh
### BEGIN INIT INFO
# Provides:          @SERVICE@
# Required-Start:    $remote_fs $network
# Required-Stop:     $remote_fs $network
# Should-Start:      $named $time $syslog
# Should-Stop:       $named $time $syslog
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: the apps of @USER@, kept by pmx
# Description:       Starts the process manager of @USER@ and the apps it has saved.
### END INIT INFO
# chkconfig: 2345 98 02
# description: the apps of @USER@, kept by pmx
# Written by pmx startup; what is changed here is lost with the next one. These may change it:
# /etc/default/@SERVICE@, /etc/sysconfig/@SERVICE@

NAME=@SERVICE@
PMX_USER=@USER@
PMX_HOME=@HOME@
PMX=@EXE@
PMX_PATH=@PATH@
# Seconds that a start may take.
START_TIMEOUT=30

for file in "/etc/default/$NAME" "/etc/sysconfig/$NAME"; do
    if [ -r "$file" ]; then . "$file"; fi
done
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH PMX PMX_HOME PMX_PATH
cd /

# A line for the shell, as the user; su may set a PATH of its own.
as_user() {
    line='PATH=$PMX_PATH; export PATH; '$1
    if [ "$(id -un)" = "$PMX_USER" ]; then
        sh -c "$line"
    else
        su -s /bin/sh "$PMX_USER" -c "$line"
    fi
}

running() {
    as_user 'exec "$PMX" ping' >/dev/null 2>&1
}

start() {
    if running; then
        echo "$NAME runs already"
        return 0
    fi
    if [ ! -x "$PMX" ]; then
        echo "$NAME: $PMX is not a program" >&2
        return 5
    fi
    # Each connection and each app costs open files.
    ulimit -n "$(ulimit -H -n)" 2>/dev/null
    as_user 'umask 077; mkdir -p "$PMX_HOME" || exit 1
        "$PMX" daemon --resurrect </dev/null >>"$PMX_HOME/pmx.log" 2>&1 &' || return 1
    left=$START_TIMEOUT
    until running; do
        if [ "$left" -le 0 ]; then
            echo "$NAME: not running after $START_TIMEOUT s (see $PMX_HOME/pmx.log)" >&2
            return 1
        fi
        left=$((left - 1))
        sleep 1
    done
    # CentOS stops at shutdown only what has a file here.
    if [ -d /var/lock/subsys ]; then touch "/var/lock/subsys/$NAME"; fi
    echo "$NAME started"
}

stop() {
    as_user 'exec "$PMX" kill' || return 1
    rm -f "/var/lock/subsys/$NAME"
}

status() {
    if running; then
        as_user 'exec "$PMX" ping'
    else
        echo "$NAME is not running"
        return 3
    fi
}

case "$1" in
    start) start ;;
    stop) stop ;;
    restart) stop && start ;;
    try-restart | condrestart) if running; then stop && start; fi ;;
    reload | force-reload) as_user 'exec "$PMX" reload all' ;;
    status) status ;;
    *)
        echo "usage: $0 {start|stop|restart|try-restart|reload|force-reload|status}" >&2
        exit 2
        ;;
esac
