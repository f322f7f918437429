'use strict';
// Loaded with --require into every Node process of a managed app. It makes a server join pmx as a cluster worker, holds back the
// accepting of a reload's candidate, and drains without losing a request. Without PMX_JOIN it does nothing. Must parse on Node 12.

const env = process.env;
const noop = () => {};
if (env.PMX_JOIN !== undefined) attempt(start);

// Whatever goes wrong in here, the app must run as it would without us.
function attempt(step, ...args) {
  try { return step(...args); } catch (_) { return undefined; }
}

function start() {
  if (!require('worker_threads').isMainThread) return;
  const fd = env.PMX_CHANNEL_FD;
  const options = { id: env.PMX_WORKER_ID, hold: env.PMX_HOLD === '1', auto: env.PMX_JOIN === 'listen', claim: noop };
  if (fd === undefined) {
    forgetMarkers();
    if (!process.connected) return;
    options.claim = () => true;
    if (options.auto) return joinAtFirstServer(options);
    const cluster = require('cluster');
    return cluster.worker ? attach(cluster, options) : undefined;
  }
  // The channel is inherited through a chain of launchers: it is for the one process of the chain that serves.
  if (isLauncher(process.argv[1] || '')) {
    // Children of a launcher may have an IPC channel to it; only those may exchange it for ours.
    env.PMX_VIA = '1';
    return;
  }
  const via = env.PMX_VIA;
  delete env.PMX_VIA;
  const file = env.PMX_CLAIM;
  // An IPC channel to somebody who is no launcher: a worker the app forked itself, whose messages are not ours to redirect.
  // A channel fd that is no socket: somebody on the way (sudo) closed it.
  if ((process.channel && !via) || !require('fs').fstatSync(+fd).isSocket()) return forgetMarkers();
  options.claim = () => {
    forgetMarkers();
    require('fs').writeFileSync(file, String(process.pid), { flag: 'wx' });
    // The handlers of an older channel would answer each handle message a second time.
    process.removeAllListeners('internalMessage');
    require('child_process')._forkChild(+fd, 'json');
    return true;
  };
  joinAtFirstServer(options);
}

// What the app spawns must not find our markers, and sees the NODE_OPTIONS of the user.
function forgetMarkers() {
  for (const name of ['JOIN', 'WORKER_ID', 'HOLD', 'CHANNEL_FD', 'CLAIM', 'VIA']) delete env['PMX_' + name];
  if (env.NODE_OPTIONS === undefined) return;
  const basename = (file) => file.replace(/"/g, '').replace(/.*\//, '');
  // By base name: the path in the variable may lead through a symbolic link, __filename never does.
  const rest = env.NODE_OPTIONS.replace(/(^|\s)--require[\s=]+("(?:[^"\\]|\\.)*"|\S+)/g,
    (option, _, file) => (basename(file) === basename(__filename) ? '' : option)).trim();
  if (rest) env.NODE_OPTIONS = rest;
  else delete env.NODE_OPTIONS;
}

function isLauncher(script) {
  const file = attempt(require('fs').realpathSync, script) || script;
  const inPackage = /.*\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(file);
  // Not every package manager lives in node_modules: .yarn/releases/yarn-4.1.0.cjs, /usr/share/nodejs/npm/bin/npm-cli.js
  if (!inPackage) return /\/(npm-cli|npx-cli|corepack|(yarn|yarnpkg|pnpm|pnpx)(-[\d.]+)?)\.[cm]?js$/.test(file);
  return /^(npm|yarn|pnpm|corepack|tsx|nodemon|ts-node-dev|node-dev|nx|lerna|cross-env|dotenv-cli|env-cmd|concurrently|npm-run-all2?)$/.test(inPackage[1]);
}

// ---- joining ----

function joinAtFirstServer(options) {
  const net = require('net');
  const dgram = require('dgram');
  const listen = net.Server.prototype.listen;
  const bind = dgram.Socket.prototype.bind;
  let state = 'waiting';
  const join = () => {
    if (state !== 'waiting') return;
    state = 'alone';
    if (process.moduleLoadList.some((name) => /internal\/cluster\/(primary|master)$/.test(name))) {
      const cluster = require('cluster');
      // setupPrimary was called, at least by fork: the app is its own cluster.
      if (Object.keys(cluster.settings).length > 0 || !options.claim() || !process.connected) return;
      withoutChannelRefs(() => convert(cluster, options.id));
      attach(cluster, options);
    } else {
      if (!options.claim() || !process.connected) return;
      env.NODE_UNIQUE_ID = options.id;
      try {
        withoutChannelRefs(() => require('cluster')._setupWorker());
      } finally {
        delete env.NODE_UNIQUE_ID;
      }
      attach(require('cluster'), options);
    }
    state = 'joined';
  };
  net.Server.prototype.listen = function(...args) {
    if (state === 'waiting' && !this._handle && attempt(isShareableListen, args)) attempt(join);
    return listen.apply(this, args);
  };
  dgram.Socket.prototype.bind = function(...args) {
    const shareable = attempt(isShareableBind, this, args[0]);
    if (state === 'waiting' && shareable) attempt(join);
    // net servers are told apart in attach(); a datagram socket can only be kept local here.
    if (state === 'joined' && !shareable) attempt(makeExclusive, args);
    return bind.apply(this, args);
  };
}

const [major, minor] = process.versions.node.split('.').map(Number);
const hasReusePort = major > 23 || (major === 23 && minor >= 1) || (major === 22 && minor >= 12);

// Would Node share this address between workers, and is it one that clients can know? Port 0 cannot be: such a server
// (a callback address, a debugging tool) belongs to this process and must not get the connections of its siblings.
function isShareableListen([where]) {
  if (typeof where === 'function') return false;
  if (where === null || typeof where !== 'object') return Number(where) > 0 || (typeof where === 'string' && isNaN(where));
  if (where.handle || where._handle || where.listen || where.fd >= 0) return false;
  if (where.exclusive || (where.reusePort && hasReusePort)) return false;
  return 'port' in where ? Number(where.port) > 0 : typeof where.path === 'string';
}

// A socket with reuseAddr or reusePort can be bound by each worker, as multicast needs it.
function isShareableBind(socket, where) {
  for (const symbol of Object.getOwnPropertySymbols(socket)) {
    const state = socket[symbol];
    if (state && (state.reuseAddr || state.reusePort)) return false;
  }
  if (where === null || typeof where !== 'object') return Number(where) > 0;
  return !where.recvStart && !where.exclusive && !(where.fd > 0) && Number(where.port) > 0;
}

function makeExclusive(args) {
  const [where, address] = args;
  if (where && (where.recvStart || where.exclusive)) return;
  const done = args.find((arg) => typeof arg === 'function');
  const options = where && typeof where === 'object' ? where :
    { port: typeof where === 'function' ? 0 : where, address: typeof address === 'string' ? address : '' };
  args.splice(0, args.length, { ...options, exclusive: true }, done);
}

// A cluster worker listens on its channel and so never ends by itself. A process that joins without having been asked must end
// when its servers are closed, as it would under plain node: undo the references of those listeners, and of no others.
function withoutChannelRefs(step) {
  const count = () => process.listenerCount('message') + process.listenerCount('disconnect');
  const before = count();
  step();
  for (let left = count() - before; left > 0; left--) channelRef(false);
}

function channelRef(on) {
  const channel = process.channel;
  if (channel && channel.refCounted) on ? channel.refCounted() : channel.unrefCounted();
}

// `cluster` was loaded as primary, by a library or a mere look at isPrimary, and cannot be loaded again as worker. So this
// plays the part of Node's own worker side, over the public channel.
function convert(cluster, id) {
  const path = require('path');
  const handles = new Map(); // key -> { server, handle }
  const callbacks = new Map();
  const indexes = new Map(); // address -> which of its servers are open, Node's `index`
  let seq = 0;
  const send = (message, callback) => {
    if (!process.connected) return;
    if (callback) callbacks.set(seq, callback);
    process.send({ cmd: 'NODE_CLUSTER', ...message, seq: seq++ }, noop);
  };
  const worker = new cluster.Worker({ id: +id, process, state: 'online' });

  const flag = (isWorker) => {
    cluster.isWorker = isWorker;
    cluster.isMaster = !isWorker;
    if ('isPrimary' in cluster) cluster.isPrimary = !isWorker;
    if (isWorker) cluster.worker = worker;
    else delete cluster.worker;
    require('module').syncBuiltinESMExports();
  };

  cluster._getServer = (server, query, callback) => {
    const isPath = query.port < 0 && typeof query.address === 'string';
    const address = isPath ? path.resolve(query.address) : query.address;
    const name = [address, query.port, query.addressType, query.fd].join(':');
    const used = indexes.get(name) || new Set();
    indexes.set(name, used);
    let index = 0;
    while (used.has(index)) index++;
    used.add(index);
    const message = { act: 'queryServer', index, data: server._getServerData ? server._getServerData() : null, ...query, address };
    send(message, (reply, shared) => {
      if (server._setServerData && reply.data) server._setServerData(reply.data);
      if (reply.errno) {
        used.delete(index);
        return callback(reply.errno, null);
      }
      const handle = shared || fauxHandle(reply);
      const close = handle.close;
      handle.close = function(...args) {
        if (handles.delete(reply.key)) send({ act: 'close', key: reply.key });
        used.delete(index);
        return close.apply(this, args);
      };
      handles.set(reply.key, { server, handle });
      return callback(0, handle);
    });
    server.once('listening', () => {
      if (!used.has(index)) return;
      worker.state = 'listening';
      const actual = server.address();
      send({ ...message, act: 'listening', port: (actual && actual.port) || query.port });
    });
  };

  const onConnection = (message, connection) => {
    const entry = handles.get(message.key);
    const max = entry && entry.server.maxConnections;
    const full = max !== undefined && max !== null && entry.server._connections >= max && !entry.server.dropMaxConnection;
    const accepted = entry !== undefined && !full;
    send({ ack: message.seq, accepted });
    if (accepted) entry.handle.onconnection(0, connection);
    else if (connection) connection.close();
  };

  const disconnect = (byPrimary) => {
    worker.exitedAfterDisconnect = true;
    let waiting = 1;
    const closed = () => {
      if (--waiting > 0 || !process.connected) return;
      if (byPrimary) process.disconnect();
      else send({ act: 'exitedAfterDisconnect' }, () => process.connected && process.disconnect());
    };
    for (const { server } of handles.values()) {
      waiting++;
      server.close(closed);
    }
    closed();
  };

  worker.disconnect = () => {
    if (worker.state !== 'disconnecting' && worker.state !== 'destroying') {
      worker.state = 'disconnecting';
      disconnect(false);
    }
    return worker;
  };
  worker.destroy = () => {
    if (worker.state === 'destroying') return;
    worker.exitedAfterDisconnect = true;
    if (!process.connected) process.exit(0);
    worker.state = 'destroying';
    send({ act: 'exitedAfterDisconnect' }, () => process.disconnect());
    process.once('disconnect', () => process.exit(0));
  };

  process.on('internalMessage', (message, handle) => {
    if (message.cmd !== 'NODE_CLUSTER') return;
    const callback = callbacks.get(message.ack);
    if (callback) {
      callbacks.delete(message.ack);
      callback(message, handle);
    } else if (message.act === 'newconn') {
      onConnection(message, handle);
    } else if (message.act === 'disconnect') {
      disconnect(true);
    }
  });
  process.once('disconnect', () => {
    worker.emit('disconnect');
    if (!worker.exitedAfterDisconnect) process.exit(0);
  });

  // An app that opens a server first (metrics) and then forks its own workers is a primary after all: from here on it
  // binds for itself, the servers it has opened stay shared.
  for (const name of ['fork', 'setupPrimary', 'setupMaster']) {
    const original = cluster[name];
    if (original) cluster[name] = function(...args) {
      if (cluster.isWorker) flag(false);
      return original.apply(this, args);
    };
  }
  flag(true);
  send({ act: 'online' });
}

// Stands for a listener that pmx accepts from; the connections come one by one.
function fauxHandle({ sockname }) {
  let timer;
  const handle = {
    listen: () => 0,
    ref: () => { timer = timer || setInterval(noop, 0x7fffffff); },
    unref: () => { timer = clearInterval(timer); },
    close: () => handle.unref(),
  };
  if (sockname) handle.getsockname = (out) => { Object.assign(out, sockname); return 0; };
  handle.ref();
  return handle;
}

// ---- a worker under pmx ----

function attach(cluster, { hold, auto }) {
  const servers = new Set();
  const sessions = new Map(); // http2 session -> its socket, which a destroyed session does not name any more
  const getServer = cluster._getServer;
  let held = hold ? [] : null;
  let draining = false;
  let graceIsOver = false;

  const say = (act, more) => process.connected && process.send({ cmd: 'NODE_PMX', act, ...more }, noop);

  cluster._getServer = function(server, query, callback) {
    const isNet = typeof server._listen2 === 'function';
    // What isShareableListen() leaves alone stays alone after the join.
    if (auto && isNet && (query.fd >= 0 || query.port === 0)) {
      server._listen2(query.address, query.port, query.addressType, query.backlog, query.fd, query.flags);
      return;
    }
    if (isNet) attempt(track, server);
    if (auto) {
      channelRef(true); // until the answer: nothing else may keep the process alive
      // Plain node binds within listen(), so apps look at address() right behind it.
      if (isNet && query.port > 0 && !server.hasOwnProperty('address')) {
        const family = query.addressType === 6 || !query.address ? 'IPv6' : 'IPv4';
        server.address = () => ({ address: query.address || '::', family, port: query.port });
      }
    }
    getServer.call(this, server, query, (error, handle) => {
      if (auto) {
        channelRef(false);
        delete server.address;
        // Nobody asked for a cluster: what cannot be shared fails, or works, as under plain node.
        if (error && isNet) return server._listen2(query.address, query.port, query.addressType, query.backlog, query.fd, query.flags);
      }
      if (held && handle) attempt(holdBack, server, handle);
      callback(error, handle);
    });
  };

  // The server shall report that it listens while the kernel gives it nothing yet.
  function holdBack(server, handle) {
    let open = true;
    const close = handle.close;
    handle.close = function(...args) {
      open = false;
      return close.apply(this, args);
    };
    for (const method of ['listen', 'recvStart']) {
      const original = handle[method];
      if (typeof original !== 'function') continue;
      handle[method] = (...args) => {
        if (!held) return original.apply(handle, args);
        held.push(() => {
          const error = open ? original.apply(handle, args) : 0;
          if (error) server.emit('error', new Error(`${method} after reload failed: ${error}`));
        });
        return 0;
      };
    }
  }

  function go() {
    const release = held || [];
    held = null;
    release.forEach((begin) => begin());
    if (auto && hold) channelRef(false);
  }

  function track(server) {
    servers.add(server);
    server.once('close', () => servers.delete(server));
    server.on('session', (session) => {
      sessions.set(session, Object.getOwnPropertySymbols(session).map((symbol) => session[symbol]).find((value) => value && value.setNoDelay));
      session.once('close', () => sessions.delete(session));
      if (draining) retire(session);
    });
  }

  // A session is told to go with the answer to its next request, which a client that asks one thing at a time cannot miss.
  // Node >= 24 would tell all of them at once in server.close().
  function retire(session) {
    session.close = noop;
    session.once('stream', () => finish(session));
  }

  function finish(session) {
    delete session.close;
    const socket = sessions.get(session);
    if (!session.destroyed) session.close();
    else if (socket) socket.destroy(); // the client ignores that we have ended
  }

  function drain(grace) {
    if (draining) return;
    draining = true;
    const http = require('http');
    const prototypes = [http.Server.prototype];
    if (process.versions.openssl) prototypes.push(require('https').Server.prototype);

    // Every answer from now on is the last one of its connection, so that the client makes its next request elsewhere.
    const storeHeader = http.ServerResponse.prototype._storeHeader;
    http.ServerResponse.prototype._storeHeader = function(firstLine, headers) {
      // To close on a client that is still sending its body may cost it the answer.
      if (this.statusCode === 101 || (!graceIsOver && attempt(isUploading, this.req))) return storeHeader.call(this, firstLine, headers);
      return storeHeader.call(this, firstLine, attempt(closingHeaders, this, headers) || headers);
    };

    // server.close() would cut idle connections that may be about to carry a request.
    const closeIdle = prototypes.map((prototype) => prototype.closeIdleConnections);
    const replace = (value) => prototypes.forEach((prototype, i) => {
      if (closeIdle[i]) prototype.closeIdleConnections = value || closeIdle[i];
    });
    replace(noop);
    sessions.forEach((_, session) => retire(session));

    const sweep = () => {
      graceIsOver = true;
      replace(undefined);
      sessions.forEach((_, session) => attempt(finish, session));
      servers.forEach((server) => attempt(closeUnused, server));
      for (const socket of process._getActiveHandles()) {
        if (socket && servers.has(socket.server)) attempt(closeSilent, socket);
      }
    };
    setInterval(sweep, Math.max(grace, 100)).unref();
  }

  process.on('internalMessage', (message) => {
    if (message.cmd !== 'NODE_PMX') return;
    if (message.act === 'go') go();
    if (message.act === 'drain') attempt(drain, message.grace >= 0 ? message.grace : 2000);
  });
  // Other processes may hold the channel too, so its end is not enough to know that this worker is done.
  const disconnect = process.disconnect;
  process.disconnect = function(...args) {
    attempt(say, 'drained');
    return disconnect.apply(this, args);
  };
  if (auto && hold) channelRef(true);
  say('hello', { hold, pid: process.pid, node: process.version });
}

const isUploading = (request) =>
  !request.complete && (request.headers['transfer-encoding'] !== undefined || Number(request.headers['content-length']) > 0);

// Connections on which nothing was ever asked are not idle to all versions: find them in the server's own list.
function closeUnused(server) {
  server.closeIdleConnections();
  for (const symbol of Object.getOwnPropertySymbols(server)) {
    const list = server[symbol];
    if (!list || !list.idle || !list.all) continue;
    for (const { socket } of list.all()) if (socket.bytesRead === 0) socket.destroy();
  }
}

// A client that has not even begun its TLS handshake.
function closeSilent(socket) {
  if (socket.bytesRead === 0 && socket.server instanceof require('tls').Server) socket.destroy();
}

// The headers as _storeHeader() takes them (set one by one, an object, a flat or a nested array), with `Connection: close`.
function closingHeaders(response, headers) {
  response.shouldKeepAlive = false;
  const keep = (name) => !/^(connection|keep-alive)$/i.test(name);
  if (response.getHeaderNames().length > 0) {
    response.removeHeader('keep-alive');
    response.setHeader('Connection', 'close');
    return headers; // the very object that setHeader changed
  }
  response._removedConnection = false;
  if (!headers) return headers;
  if (!Array.isArray(headers)) {
    const names = Object.keys(headers).filter(keep);
    return Object.assign({}, ...names.map((name) => ({ [name]: headers[name] })));
  }
  if (Array.isArray(headers[0])) return headers.filter(([name]) => keep(name));
  return headers.filter((_, i) => keep(headers[i - (i % 2)]));
}
