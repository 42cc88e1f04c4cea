"""A small shop front: real imports, state in memory."""
import flask

application = flask.Flask(__name__)
words = []


@application.get("/")
def home():
    return flask.render_template_string("{{ name }} answers\n", name="flask")


@application.get("/keep")
def keep():
    words.append("kept")
    return "".join(words)


@application.get("/words")
def show():
    return "words: " + " ".join(words)
