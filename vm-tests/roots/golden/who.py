"""Says who it is, at the TCP port of its first argument; its second one is what it reads first.

An answer is three words: when it was started, a name drawn for this answer alone, and what it has
read. A hangup has it read again. It imports nothing that maps a library of secrets.
"""

import os
import signal
import socket
import sys
import time

# A start that a boot can gain by leaving it out.
word, numbers = "", list(range(100_000))
while time.process_time() < 0.3:
    numbers.sort(key=lambda number: -number)


def read(*_):
    global word
    with open(sys.argv[2]) as file:
        word = file.read().strip()


read()
born = time.time_ns()
signal.signal(signal.SIGHUP, read)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
    systemd.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
while True:
    client = server.accept()[0]
    client.sendall(f"{born} {os.getrandom(16).hex()} {word or '-'}\n".encode())
    client.close()
