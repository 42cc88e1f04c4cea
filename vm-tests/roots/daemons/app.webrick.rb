# WEBrick: threads, a timer of its own.
require 'webrick'

words = []
server = WEBrick::HTTPServer.new(BindAddress: '127.0.0.1', Port: 7008, AccessLog: [])
server.mount_proc('/') { |_, response| response.body = "webrick answers; words: #{words.join(' ')}\n" }
server.mount_proc('/keep') { |_, response| words << 'kept'; response.body = 'ok' }
trap('TERM') { server.shutdown }
server.start
