const http = require('node:http');
const { answer } = require('./answer.js');
http.createServer((request, response) => response.end(answer)).listen(7009, '127.0.0.1');
