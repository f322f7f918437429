// The same as an ES module.
import process from 'node:process';
import express from 'express';

const app = express();
app.get('/', (request, response) => response.set('x-worker', String(process.pid)).send('hello from express\n'));
app.listen(process.env.PORT, () => console.log('listening on', process.env.PORT));
