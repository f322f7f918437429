// Types that only a compiler takes away: an enum is code.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';

enum Word { Hello = 'hello from typescript\n' }

createServer((request: IncomingMessage, response: ServerResponse): void => {
  response.setHeader('x-worker', process.pid);
  response.end(Word.Hello);
}).listen(process.env.PORT);
