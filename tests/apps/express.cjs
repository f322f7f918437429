// An Express app as people write it.
const express = require('express');

const app = express();
app.get('/', (request, response) => response.set('x-worker', String(process.pid)).send('hello from express\n'));
app.get('/slow', (request, response) => setTimeout(() => response.send('slow\n'), 1000));
app.listen(process.env.PORT, () => console.log('listening on', process.env.PORT));
