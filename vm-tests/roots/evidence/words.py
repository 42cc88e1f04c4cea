ANSWER = b'uwsgi answers\n'
