// An HTTP/2 client without TLS: one request, prints who answered.
const session = require('http2').connect('http://127.0.0.1:' + process.argv[2]);
const stream = session.request({ ':path': '/' });
stream.on('response', (headers) => console.log(headers[':status'], headers['x-worker']));
stream.on('end', () => session.close());
stream.resume();
