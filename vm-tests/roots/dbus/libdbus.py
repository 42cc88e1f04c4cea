#!/usr/bin/python3
"""Counts calls on the bus and writes down what happens to another name. libdbus, by dbus-python."""
import sys

import dbus
import dbus.mainloop.glib
import dbus.service
from gi.repository import GLib

NAME, WATCHED = sys.argv[1:3]
INTERFACE = "com.example.Count"
PATH = "/com/example/Count"


def log(line):
    with open(f"/var/log/{NAME}", "a") as file:
        file.write(line + "\n")


class Count(dbus.service.Object):
    count = 0

    @dbus.service.method(INTERFACE, out_signature="u")
    def Next(self):
        self.count += 1
        self.Tick(self.count)
        return self.count

    @dbus.service.method(INTERFACE, in_signature="s", out_signature="u")
    def Ask(self, other):
        return dbus.Interface(bus.get_object(other, PATH, introspect=False), INTERFACE).Next()

    @dbus.service.signal(INTERFACE, signature="u")
    def Tick(self, count):
        pass


def owner_changed(name, old, new):
    log(f"{name} {'had' if old else 'none'} {'has' if new else 'none'}")


dbus.mainloop.glib.DBusGMainLoop(set_as_default=True)
bus = dbus.SystemBus()
bus.add_signal_receiver(owner_changed, "NameOwnerChanged", "org.freedesktop.DBus", "org.freedesktop.DBus",
                        "/org/freedesktop/DBus", arg0=WATCHED)
bus.add_signal_receiver(lambda count: log(f"tick {count}"), "Tick", INTERFACE, WATCHED, PATH)
name = dbus.service.BusName(NAME, bus, do_not_queue=True)
served = Count(bus, PATH)
GLib.MainLoop().run()
