// A client that has one TLS session and comes back with it until two workers have taken it. Prints what it found.
const tls = require('tls');

const port = Number(process.argv[2]);
const workers = new Set();
let refused = 0;
let session;

function visit(left) {
  const socket = tls.connect({ port, session, rejectUnauthorized: false, maxVersion: 'TLSv1.2' }, () => {
    if (session && !socket.isSessionReused()) refused++;
    session = session || socket.getSession();
    socket.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
  });
  let text = '';
  socket.on('data', (data) => { text += data; });
  socket.on('error', (error) => { console.log(String(error)); process.exit(1); });
  socket.on('close', () => {
    workers.add(/x-worker: (\d+)/.exec(text)[1]);
    if ((workers.size < 2 || left > 90) && left > 0) return visit(left - 1);
    console.log(JSON.stringify({ workers: workers.size, refused }));
  });
}
visit(100);
