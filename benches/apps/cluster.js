// Node's own cluster with its default policy, round robin.
const cluster = require('cluster');

if (cluster.isPrimary) {
  for (let i = 0; i < Number(process.env.INSTANCES); i++) cluster.fork();
} else {
  require('./hello.js');
}
