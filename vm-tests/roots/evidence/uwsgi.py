from words import ANSWER


def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [ANSWER]
