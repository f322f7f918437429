"""A service of systemd's `Type=notify`, as sd_notify(3) describes it: datagrams to $NOTIFY_SOCKET, a watchdog
that is fed twice in its time, a clean end. What it says can be driven by a file of commands."""
import os, signal, socket, subprocess, sys, time


def notify(text, *fds):
    address = os.environ["NOTIFY_SOCKET"]
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(address)
        data = text if isinstance(text, bytes) else text.encode()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds))]
        sock.sendmsg([data], rights if fds else [])


def watchdog():
    """The seconds between two signs of life, or None: sd_watchdog_enabled(3)."""
    pid = os.environ.get("WATCHDOG_PID")
    if pid is not None and int(pid) != os.getpid():
        return None
    usec = int(os.environ.get("WATCHDOG_USEC", "0"))
    return usec / 2e6 if usec else None


def stop(signum, frame):
    notify("STOPPING=1\nSTATUS=going")
    sys.exit(0)


def barrier():
    """sd_notify_barrier(3): true once the manager has dealt with everything before."""
    reader, writer = os.pipe()
    notify("BARRIER=1", writer)
    os.close(writer)
    import select
    ready, _, _ = select.select([reader], [], [], 20)
    os.close(reader)
    return bool(ready)


def main():
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    commands = sys.argv[1] if len(sys.argv) > 1 else None
    feeds, done = True, 0
    # Each command is for one child only: the next one goes on behind it.
    counter = commands + ".done" if commands else None
    if counter and os.path.exists(counter):
        done = int(open(counter).read())
    period = watchdog()
    if commands is None:
        notify("READY=1\nSTATUS=serving\nMAINPID=%d" % os.getpid())
    fed = time.monotonic()
    while True:
        lines = open(commands).read().splitlines() if commands and os.path.exists(commands) else []
        for line in lines[done:]:
            done += 1
            with open(counter, "w") as file:
                file.write(str(done))
            verb, _, rest = line.partition(" ")
            if verb == "say":
                notify(rest.replace("\\n", "\n"))
            elif verb == "bytes":
                notify(bytes.fromhex(rest))
            elif verb == "long":
                notify("READY=1\n" + "X=" + "y" * int(rest))
            elif verb == "fds":
                handles = [os.open("/dev/null", os.O_RDONLY) for _ in range(int(rest))]
                notify("FDSTORE=1\nSTATUS=fds", *handles)
            elif verb == "child":
                # By a descendant in a session of its own, which is there until it was heard.
                subprocess.run([sys.executable, __file__, "--say", rest.replace("\\n", "\n")], start_new_session=True, check=True)
            elif verb == "hang":
                feeds = False
            elif verb == "ignore":
                signal.signal(signal.SIGINT, lambda *_, usec=rest: notify("EXTEND_TIMEOUT_USEC=" + usec))
            elif verb == "barrier":
                print("barrier", barrier(), flush=True)
            elif verb == "env":
                print("env", os.environ.get(rest), os.getpid(), flush=True)
            elif verb == "exit":
                sys.exit(int(rest))
        if feeds and period and time.monotonic() - fed >= period:
            fed = time.monotonic()
            notify("WATCHDOG=1")
        time.sleep(0.02)


if sys.argv[1:2] == ["--say"]:
    notify(sys.argv[2])
    barrier()
else:
    main()
