#!/usr/bin/python3
"""Connects to the bus until it lets this user no more in, says so, and keeps what it has."""
import signal

import dbus
import dbus.bus

held = []
while True:
    try:
        held.append(dbus.bus.BusConnection("unix:path=/run/dbus/system_bus_socket"))
    except dbus.exceptions.DBusException as error:
        print(f"{len(held)} connections, then {error}", flush=True)
        break
for connection in held:
    connection.set_exit_on_disconnect(False)
open("/run/hog/full", "w").close()
signal.pause()
