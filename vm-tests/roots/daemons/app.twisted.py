"""Twisted: a resource tree with state."""
from twisted.application import internet, service
from twisted.web import resource, server

words = []


class Home(resource.Resource):
    isLeaf = True

    def render_GET(self, request):
        if request.path == b"/keep":
            words.append("kept")
        return f"twisted answers; words: {' '.join(words)}\n".encode()


application = service.Application("demo")
internet.TCPServer(7004, server.Site(Home()), interface="127.0.0.1").setServiceParent(application)
