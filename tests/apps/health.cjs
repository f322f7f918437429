// A server whose health others decide: by a file next to it that names who is ill (`all`, or a pid), and one that names who hangs.
const fs = require('fs');
const http = require('http');

const there = (name) => { try { return fs.readFileSync(process.env.DIR + '/' + name, 'utf8').trim().split(/\s+/); } catch (_) { return []; } };
const about = (name) => there(name).some((word) => word === 'all' || word === String(process.pid));

const server = http.createServer((request, response) => {
  response.setHeader('x-worker', process.pid);
  if (request.url === '/health') {
    fs.appendFileSync(process.env.DIR + '/asked', `${process.pid} ${request.socket.remoteAddress}\n`);
    response.statusCode = process.env.ILL || about('ill') ? 503 : 200;
  }
  response.end('hello\n');
}).listen(process.env.PORT);

setInterval(() => {
  // As an endless loop would, until it is killed; with nothing in its hands that would be lost with it.
  while (server._connections === 0 && about('hang')) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
}, 20);
