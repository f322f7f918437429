// A Fastify app as people write it.
const fastify = require('fastify')({ logger: true });

fastify.get('/', async (request, reply) => {
  reply.header('x-worker', String(process.pid));
  return 'hello from fastify\n';
});
fastify.listen({ port: Number(process.env.PORT), host: '127.0.0.1' });
