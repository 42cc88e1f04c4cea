"""Computes for a second, then is ready and does nothing."""

import os
import signal
import socket
import time

word = open("/etc/slow.conf").read()
numbers = list(range(200_000))
while time.process_time() < 1.0:
    numbers.sort(key=lambda number: -number)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
    systemd.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
while True:
    signal.pause()
