#!/usr/bin/python3
"""Speaks to the bus and never listens, as cupsd does: what the bus says to it lies unread. On SIGUSR1 it reads everything and writes a
line per message to the file that it is given: reply, or the signal with its strings."""
import os, signal, socket, struct, sys

WATCHED, LOG = sys.argv[1:]
SIGNALS = {signal.SIGUSR1}


def text(value):
    data = value.encode()
    return struct.pack('<I', len(data)) + data + b'\0'


def call(serial, member, argument=None):
    fields = b''
    wanted = [(1, 'o', '/org/freedesktop/DBus'), (2, 's', 'org.freedesktop.DBus'), (3, 's', member),
              (6, 's', 'org.freedesktop.DBus')]
    for code, kind, value in wanted:
        fields += b'\0' * (-len(fields) % 8) + bytes([code, 1]) + kind.encode() + b'\0' + text(value)
    body = b'' if argument is None else text(argument)
    if body:
        fields += b'\0' * (-len(fields) % 8) + bytes([8, 1]) + b'g\0\x01s\0'
    head = struct.pack('<cBBBIII', b'l', 1, 0, 1, len(body), serial, len(fields)) + fields
    return head + b'\0' * (-len(head) % 8) + body


def strings(body):
    found, at = [], 0
    while at + 4 <= len(body):
        size, = struct.unpack_from('<I', body, at)
        found.append(body[at + 4:at + 4 + size].decode() or 'none')
        at += 4 + size + 1
        at += -at % 4
    return found


def describe(data):
    lines = []
    while data:
        _, kind, _, _, body_len, _, fields_len = struct.unpack_from('<cBBBIII', data)
        start = 16 + fields_len + -fields_len % 8
        body, data = data[start:start + body_len], data[start + body_len:]
        lines.append({2: 'reply', 3: 'error'}.get(kind) or 'signal ' + ' '.join(strings(body)))
    return lines


signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
bus = socket.socket(socket.AF_UNIX)
bus.connect('/run/dbus/system_bus_socket')
bus.sendall(b'\0AUTH EXTERNAL ' + str(os.getuid()).encode().hex().encode() + b'\r\n')
if not bus.recv(200).startswith(b'OK'):
    sys.exit('not accepted')
rule = f"type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='{WATCHED}'"
bus.sendall(b'BEGIN\r\n' + call(1, 'Hello') + call(2, 'AddMatch', rule))
while True:
    signal.sigwait(SIGNALS)
    data = b''
    try:
        while part := bus.recv(65536, socket.MSG_DONTWAIT):
            data += part
    except BlockingIOError:
        pass
    with open(LOG, 'w') as log:
        log.write('\n'.join(describe(data)) + '\n')
