"""What a prefork server loads before its forks: 48 MiB that its workers only look at, and half a MiB that each changes."""

import os

CATALOGUE = [bytes([n & 255]) * 65536 for n in range(768)]
own = bytearray(512 * 1024)


def application(environ, start_response):
    for place in range(0, len(own), 4096):
        own[place] = (own[place] + 1) & 255
    total = sum(article[7] for article in CATALOGUE)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Connection", "close")])
    return [f"shop {os.getpid()} {total}\n".encode()]
