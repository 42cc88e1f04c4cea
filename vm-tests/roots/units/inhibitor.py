#!/usr/bin/python3
"""Holds an inhibitor of logind, and counts as the other subjects do."""
import array, os, signal, socket, struct, sys

SIGNALS = {signal.SIGUSR1}


def text(value):
    data = value.encode()
    return struct.pack('<I', len(data)) + data + b'\0'


def strings(values):
    body = b''
    for value in values:
        body += b'\0' * (-len(body) % 4) + text(value)
    return body


def call(serial, whom, member, arguments=()):
    fields = b''
    wanted = [(1, 'o', whom[1]), (2, 's', whom[2]), (3, 's', member), (6, 's', whom[0])]
    for code, kind, value in wanted:
        fields += b'\0' * (-len(fields) % 8) + bytes([code, 1]) + kind.encode() + b'\0' + text(value)
    if arguments:
        signature = b's' * len(arguments)
        fields += b'\0' * (-len(fields) % 8) + bytes([8, 1]) + b'g\0' + bytes([len(signature)]) + signature + b'\0'
    body = strings(arguments)
    head = struct.pack('<cBBBIII', b'l', 1, 0, 1, len(body), serial, len(fields)) + fields
    return head + b'\0' * (-len(head) % 8) + body


def inhibit():
    bus = socket.socket(socket.AF_UNIX)
    bus.connect('/run/dbus/system_bus_socket')
    bus.sendall(b'\0AUTH EXTERNAL\r\nDATA\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n')
    driver = ('org.freedesktop.DBus', '/org/freedesktop/DBus', 'org.freedesktop.DBus')
    login = ('org.freedesktop.login1', '/org/freedesktop/login1', 'org.freedesktop.login1.Manager')
    bus.sendall(call(1, driver, 'Hello'))
    bus.sendall(call(2, login, 'Inhibit', ('sleep:shutdown', 'Zähler', 'a "test"', 'delay')))
    while True:
        data, ancillary, _, _ = bus.recvmsg(4096, socket.CMSG_SPACE(4))
        if not data:
            sys.exit('the bus has closed')
        for _, _, numbers in ancillary:
            found = array.array('i')
            found.frombytes(numbers[:4])
            bus.close()
            return found[0]


signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
held = inhibit()
os.set_inheritable(held, False)
count = 0
while True:
    signal.sigwait(SIGNALS)
    count += 1
    path = os.environ['COUNT_FILE']
    with open(path + '.new', 'w') as file:
        file.write(f'{count} {os.getpid()}\n')
    os.rename(path + '.new', path)
    print(f'counted {count}', file=sys.stderr, flush=True)
