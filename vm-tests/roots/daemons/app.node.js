// Node.js: state in memory, a timer, and the thread pool (crypto).
const http = require('node:http');
const crypto = require('node:crypto');
const words = [];
setInterval(() => {}, 250);
http.createServer((request, response) => {
  if (request.url === '/keep') words.push('kept');
  crypto.pbkdf2('a', 'b', 10, 16, 'sha256', () => {
    response.end(`node answers; words: ${words.join(' ')}\n`);
  });
}).listen(7009, '127.0.0.1');
