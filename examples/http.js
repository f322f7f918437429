// A plain Node server: no signal handler, no cluster code.
const http = require('node:http');

const who = `${process.pid} instance ${process.env.NODE_APP_INSTANCE ?? 0}\n`;
const server = http.createServer((request, response) => response.end(who));
server.listen(process.env.PORT || 3000, () => console.log('listening on', server.address().port));
