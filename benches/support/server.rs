//! A server under test with its manager, from start to end.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn, sockopt};
use pmx::load::{Load, Plan, Report, Target};
use pmx::protocol::VERSION;

use super::process::{Home, Running, children_of, cpu_time, parent_of, wait_until};
use super::{Manager, Outcome, Setup, apps, find};

const START_LIMIT: Duration = Duration::from_secs(10);
/// Once a worker has answered, how long the others may take; behind one shared socket they may never be asked.
const OTHERS_LIMIT: Duration = Duration::from_secs(2);
const END_LIMIT: Duration = Duration::from_secs(5);

/// A server under test, however many processes it is. Its drop ends them all.
pub struct Server {
    /// The name in tables.
    pub name: String,
    address: SocketAddr,
    /// How many workers it has.
    pub instances: usize,
    started: Instant,
    /// What we started ourselves.
    children: Vec<Child>,
    /// The command that ends a manager which we did not start as a child.
    kill: Option<Command>,
    reload: Option<Command>,
    /// The command that replaces the manager itself, its socket, and whether that understands our ping.
    update: Option<(Command, &'static str, bool)>,
    home: Home,
    workers: Vec<u32>,
    /// Who started the workers, unless it was us.
    supervisor: Option<u32>,
}

impl Server {
    fn new(name: &str, instances: usize, address: SocketAddr) -> Outcome<Server> {
        Ok(Server {
            name: name.to_owned(),
            address,
            instances,
            started: Instant::now(),
            children: Vec::new(),
            kill: None,
            reload: None,
            update: None,
            home: Home::new()?,
            workers: Vec::new(),
            supervisor: None,
        })
    }

    /// The limit: processes that share a port by SO_REUSEPORT, and nobody above them.
    pub fn bare(setup: &Setup, instances: usize) -> Outcome<Server> {
        let mut address = SocketAddrV4::new([127, 0, 0, 1].into(), 0);
        let mut sockets = Vec::new();
        for _ in 0..instances {
            let (socket, bound) =
                reuseport_socket(address).map_err(|error| format!("bind {address}: {error}"))?;
            address = bound;
            sockets.push(socket);
        }
        let mut server = Server::new("bare", instances, address.into())?;
        for socket in sockets {
            // Not every Node has a reusePort option, but each listens on what it inherits, here as stdin.
            let mut command = setup.node(&server.home.0);
            server.spawn(command.arg("hello.js").env("LISTEN_FD", "0").stdin(Stdio::from(socket)))?;
        }
        Ok(server)
    }

    /// Node's own cluster module.
    pub fn node_cluster(setup: &Setup, instances: usize) -> Outcome<Server> {
        let mut server = Server::new("node cluster", instances, free_address()?)?;
        let mut command = setup.node(&server.home.0);
        command.env("INSTANCES", instances.to_string()).env("PORT", server.address.port().to_string());
        server.spawn(command.arg("cluster.js"))?;
        Ok(server)
    }

    /// `start hello.js -i <instances> --name hello <options>`.
    pub fn managed(
        setup: &Setup,
        manager: Manager,
        name: &str,
        instances: usize,
        options: &[&str],
    ) -> Outcome<Server> {
        let mut server = Server::new(name, instances, free_address()?)?;
        let command = |arguments: &[&str]| {
            let mut command = setup.command(&manager.program(setup), &server.home.0);
            command.args(arguments);
            command
        };
        let mut start = command(&["start"]);
        start
            .arg(apps().join("hello.js"))
            .args(["-i", &instances.to_string(), "--name", "hello"])
            .args(options);
        start.env("PORT", server.address.port().to_string());
        let reload = command(&["reload", "hello"]);
        server.kill = Some(command(&["kill"]));
        server.reload = Some(reload);
        let ours = manager == Manager::Pmx;
        server.update = Some((command(&["update"]), if ours { "pmx.sock" } else { "rpc.sock" }, ours));
        Running::spawn(&mut start, &server.home.0)?.wait()?;
        Ok(server)
    }

    /// Node's cluster module under supervisord, which balances nothing itself.
    pub fn supervised(setup: &Setup, instances: usize) -> Outcome<Server> {
        let programs = find("supervisord").zip(find("supervisorctl"));
        let (supervisord, supervisorctl) = programs.ok_or("not installed")?;
        let mut server = Server::new("supervisord", instances, free_address()?)?;
        let home = server.home.0.clone();
        let configuration = home.join("supervisord.conf");
        let node = setup.node.as_deref().unwrap_or(Path::new("node"));
        let text = format!(
            "[supervisord]\nnodaemon=true\nlogfile={0}/supervisord.log\npidfile={0}/pid\nchildlogdir={0}\n\
             [unix_http_server]\nfile={0}/socket\n[supervisorctl]\nserverurl=unix://{0}/socket\n\
             [rpcinterface:supervisor]\n\
             supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n\
             [program:hello]\ncommand={1} cluster.js\ndirectory={2}\nstopasgroup=true\nkillasgroup=true\n\
             environment=INSTANCES=\"{instances}\",PORT=\"{3}\"\n",
            home.display(),
            node.display(),
            apps().display(),
            server.address.port(),
        );
        std::fs::write(&configuration, text).map_err(|error| error.to_string())?;
        let command = |program: &Path| {
            let mut command = setup.command(program, &home);
            command.arg("-c").arg(&configuration);
            command
        };
        let (mut update, mut kill) = (command(&supervisorctl), command(&supervisorctl));
        update.arg("reload");
        kill.arg("shutdown");
        server.spawn(&mut command(&supervisord))?;
        server.kill = Some(kill);
        server.update = Some((update, "socket", false));
        Ok(server)
    }

    fn spawn(&mut self, command: &mut Command) -> Outcome<()> {
        let log = File::create(self.home.0.join("log")).map_err(|error| error.to_string())?;
        let child = command.stdout(Stdio::null()).stderr(log).spawn();
        self.children.push(child.map_err(|error| error.to_string())?);
        Ok(())
    }

    /// Those of the candidates that answer; what does not start is told in a line and left out.
    pub fn ready(setup: &Setup, candidates: Vec<(String, Outcome<Server>)>) -> Outcome<Vec<Server>> {
        let mut servers = Vec::new();
        for (name, server) in candidates {
            setup.check_interrupt()?;
            match server.and_then(|mut server| server.wait_ready(setup).map(|()| server)) {
                Ok(server) => servers.push(server),
                Err(error) => println!("{name}: could not start: {error}"),
            }
        }
        if servers.is_empty() { Err("nothing could be started".to_owned()) } else { Ok(servers) }
    }

    /// Waits until the workers answer, and learns who they are.
    pub fn wait_ready(&mut self, setup: &Setup) -> Outcome<()> {
        let mut load = Load::new(self.plan(16, false)).map_err(|error| error.to_string())?;
        let mut seen = BTreeSet::new();
        let mut limit = (self.started + START_LIMIT).max(Instant::now() + Duration::from_secs(1));
        while seen.len() < self.instances && Instant::now() < limit {
            setup.check_interrupt()?;
            load.run_for(Duration::from_millis(20)).map_err(|error| error.to_string())?;
            let none_before = seen.is_empty();
            seen.extend(pids(&load.take_report()));
            if none_before && !seen.is_empty() {
                limit = Instant::now() + OTHERS_LIMIT;
            }
        }
        let Some(first) = seen.first() else {
            return Err(format!("no answer from {} within {} s", self.address, START_LIMIT.as_secs()));
        };
        self.supervisor = parent_of(*first).filter(|pid| *pid != std::process::id());
        seen.extend(self.supervisor.map(children_of).unwrap_or_default());
        self.workers = seen.into_iter().collect();
        Ok(())
    }

    /// A load on this server, counted by worker.
    pub fn plan(&self, clients: usize, keep_alive: bool) -> Plan {
        let tally_header = Some("x-worker".to_owned());
        Plan { clients, keep_alive, tally_header, ..Plan::new(Target::Tcp(self.address)) }
    }

    /// Adds the workers that answered, so that our end can wait for theirs.
    pub fn learn_workers(&mut self, report: &Report) {
        let new: Vec<u32> = pids(report).filter(|pid| !self.workers.contains(pid)).collect();
        self.workers.extend(new);
    }

    /// CPU time so far of all workers, and of who is above them.
    pub fn cpu_times(&self) -> (Duration, Duration) {
        let workers = self.workers.iter().map(|pid| cpu_time(*pid)).sum();
        (workers, self.supervisor.map(cpu_time).unwrap_or_default())
    }

    /// Starts the manager's reload command.
    pub fn reload(&mut self) -> Outcome<Running> {
        let command = self.reload.as_mut().ok_or("nobody to reload it")?;
        Running::spawn(command, &self.home.0)
    }
}

impl Server {
    /// Starts the command that replaces the manager itself.
    pub fn update(&mut self) -> Outcome<Running> {
        let (command, _, _) = self.update.as_mut().ok_or("nobody to update it")?;
        Running::spawn(command, &self.home.0)
    }

    /// Whether the manager answers at this moment. Where it does not understand us, whether it lets us in.
    pub fn pinger(&self) -> impl Fn() -> bool + Send + use<> {
        let socket = self.update.as_ref().map(|(_, name, ours)| (self.home.0.join(name), *ours));
        move || {
            let Some((path, ours)) = &socket else { return false };
            let Ok(mut stream) = UnixStream::connect(path) else { return false };
            if !ours {
                return true;
            }
            let line = format!("{}\n", serde_json::json!({ "v": VERSION, "id": 1, "verb": "ping" }));
            let mut answer = String::new();
            let asked =
                stream.set_read_timeout(Some(START_LIMIT)).and_then(|()| stream.write_all(line.as_bytes()));
            asked.is_ok()
                && BufReader::new(stream).read_line(&mut answer).is_ok_and(|count| count > 0)
                && answer.contains("pong")
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let managed = self.kill.is_some();
        if let Some(mut command) = self.kill.take()
            && let Err(error) =
                Running::spawn(&mut command, &self.home.0).and_then(|mut running| running.wait())
        {
            println!("{}: could not stop: {error}", self.name);
        }
        for child in &mut self.children {
            if managed {
                // It was asked to end, and has to end others first.
                let _ = wait_until("", END_LIMIT, || !matches!(child.try_wait(), Ok(None)));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        let end = Instant::now() + END_LIMIT;
        let mut left: Vec<u32> = self.workers.iter().copied().chain(self.supervisor).collect();
        while !left.is_empty() && Instant::now() < end {
            left.retain(|pid| parent_of(*pid).is_some());
            sleep(Duration::from_millis(2));
        }
        if !left.is_empty() {
            println!("{}: still running after its end: {left:?}", self.name);
        }
    }
}

/// The workers that answered.
pub fn pids(report: &Report) -> impl Iterator<Item = u32> {
    report.tally.iter().filter_map(|(pid, _)| pid.parse().ok())
}

fn free_address() -> Outcome<SocketAddr> {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    address.map_err(|error| format!("find a free port: {error}"))
}

fn reuseport_socket(address: SocketAddrV4) -> io::Result<(OwnedFd, SocketAddrV4)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    socket::setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    socket::setsockopt(&socket, sockopt::ReusePort, &true)?;
    socket::bind(socket.as_raw_fd(), &SockaddrIn::from(address))?;
    let bound: SockaddrIn = socket::getsockname(socket.as_raw_fd())?;
    Ok((socket, SocketAddrV4::new(bound.ip(), bound.port())))
}
