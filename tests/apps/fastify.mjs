// The same as an ES module, with top-level await.
import Fastify from 'fastify';

const fastify = Fastify();
fastify.get('/', async (request, reply) => {
  reply.header('x-worker', String(process.pid));
  return 'hello from fastify\n';
});
await fastify.listen({ port: Number(process.env.PORT), host: '0.0.0.0' });
console.log('listening on', process.env.PORT);
