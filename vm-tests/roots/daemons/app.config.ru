# Plain Rack, under puma.
words = []
run lambda { |env|
  words << 'kept' if env['PATH_INFO'] == '/keep'
  [200, { 'content-type' => 'text/plain' }, ["puma answers; words: #{words.join(' ')}\n"]]
}
