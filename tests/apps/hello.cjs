// The plainest server: no signal handler, nothing of managers.
const http = require('http');

http.createServer((request, response) => {
  response.setHeader('x-worker', process.pid);
  if (request.url === '/slow') setTimeout(() => response.end('slow\n'), 1000);
  else if (request.url !== '/never') response.end('hello\n');
}).listen(process.env.PORT);
