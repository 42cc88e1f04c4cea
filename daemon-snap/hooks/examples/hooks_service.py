#!/usr/bin/python3
"""A service with a key that must not be in an image: what hooks_service.rs does, with nothing but Python's own library."""
import os
import select
import signal
import socket

COUNT_FILE = os.environ["COUNT_FILE"]
NAMES = {b"before-snapshot": "BeforeSnapshot", b"after-snapshot": "AfterSnapshot", b"after-restore": "AfterRestore"}


def open_hooks():
    """The socket on which fastboot speaks, and what has to stay open beside it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    memory = os.memfd_create("fastboot-hooks")
    os.write(memory, b"%d\n" % theirs.fileno())
    return ours, (theirs, memory)


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


hooks, kept_open = open_hooks()
wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
signal.set_wakeup_fd(wake_write)
signal.signal(signal.SIGUSR1, lambda *_: None)
key, count = os.urandom(16), 0
while True:
    write(COUNT_FILE + ".key", key.hex() if key else "dropped")
    readable, _, _ = select.select([hooks, wake_read], [], [])
    if wake_read in readable:
        count += len(os.read(wake_read, 64))
        write(COUNT_FILE, f"{count} {os.getpid()}\n")
        print(f"counted {count}", flush=True)
    if hooks in readable:
        event = hooks.recv(64)
        key = None if event == b"before-snapshot" else os.urandom(16)
        with open(COUNT_FILE + ".events", "a") as file:
            file.write(NAMES[event] + "\n")
        hooks.send(b"ok")
