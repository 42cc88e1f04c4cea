#!/usr/bin/python3
"""Owns the names that it is given: the first one it must have, the others if they are to be had."""
import sys
import dbus
from dbus.mainloop.glib import DBusGMainLoop
from gi.repository import GLib

DBusGMainLoop(set_as_default=True)
bus = dbus.SystemBus()
first, *others = sys.argv[1:]
for name in others:
    try:
        bus.request_name(name)
    except dbus.DBusException as error:
        print(f'{name}: {error}', file=sys.stderr)
bus.request_name(first)
GLib.MainLoop().run()
