// One worker with every kind of server that Node shares. Each says where it listens; the port itself is the web server.
const dgram = require('dgram');
const fs = require('fs');
const http = require('http');
const http2 = require('http2');
const https = require('https');
const net = require('net');

const { PORT, DIR } = process.env;
const tls = { key: fs.readFileSync(DIR + '/key.pem'), cert: fs.readFileSync(DIR + '/cert.pem') };
const answer = (request, response) => {
  response.setHeader('x-worker', process.pid);
  response.end('hello\n');
};
const say = (name, server) => () => console.log(JSON.stringify({ name, address: server.address() }));
const listen = (name, server, ...where) => server.listen(...where, say(name, server));

listen('v4', http.createServer(answer), 0, '127.0.0.1');
listen('v6', http.createServer(answer), 0, '::1');
listen('free', http.createServer(answer), 0);
listen('free too', http.createServer(answer), 0);
listen('unix', http.createServer(answer), DIR + '/web.sock');
listen('h2c', http2.createServer(answer), 0);
listen('https', https.createServer(tls, answer), 0);
listen('net', net.createServer((socket) => socket.end('pid ' + process.pid)), 0);
const udp = dgram.createSocket('udp4', (message, from) => udp.send('pid ' + process.pid, from.port, from.address));
udp.bind(0, '127.0.0.1', say('udp', udp));
listen('dual', http.createServer(answer), PORT);
