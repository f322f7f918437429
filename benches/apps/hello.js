// Hello world, as people write it: it knows nothing of managers and handles no signal.
// LISTEN_FD names an inherited listening socket; else it listens on PORT.
const http = require('http');

const server = http.createServer((request, response) => {
  response.setHeader('x-worker', process.pid);
  response.end('hello world\n');
});
const { LISTEN_FD, PORT } = process.env;
server.listen(LISTEN_FD ? { fd: Number(LISTEN_FD) } : Number(PORT));
