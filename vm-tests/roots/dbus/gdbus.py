#!/usr/bin/python3
"""Counts calls on the bus and writes down what happens to other names, and signals of the first of them. GDBus."""
import sys

from gi.repository import Gio, GLib

NAME, WATCHED, *OTHERS = sys.argv[1:]
INTERFACE = "com.example.Count"
PATH = "/com/example/Count"
XML = f"""<node><interface name='{INTERFACE}'><method name='Next'><arg type='u' direction='out'/></method>
<method name='Ask'><arg type='s' direction='in'/><arg type='u' direction='out'/></method>
<signal name='Tick'><arg type='u'/></signal></interface></node>"""
count = 0


def log(line):
    with open(f"/var/log/{NAME}", "a") as file:
        file.write(line + "\n")


def called(connection, sender, path, interface, method, parameters, invocation):
    global count
    if method == "Ask":
        # A call of our own, to the service that is named.
        other = parameters.unpack()[0]
        answer = connection.call_sync(other, PATH, INTERFACE, "Next", None, None, 0, 5000, None)
        invocation.return_value(answer)
        return
    count += 1
    connection.emit_signal(None, PATH, INTERFACE, "Tick", GLib.Variant("(u)", (count,)))
    invocation.return_value(GLib.Variant("(u)", (count,)))


def owner_changed(connection, sender, path, interface, signal, arguments):
    name, old, new = arguments.unpack()
    log(f"{name} {'had' if old else 'none'} {'has' if new else 'none'}")


bus = Gio.bus_get_sync(Gio.BusType.SYSTEM)
bus.register_object(PATH, Gio.DBusNodeInfo.new_for_xml(XML).interfaces[0], called, None, None)
for watched in (WATCHED, *OTHERS):
    bus.signal_subscribe("org.freedesktop.DBus", "org.freedesktop.DBus", "NameOwnerChanged", "/org/freedesktop/DBus",
                         watched, 0, owner_changed)
bus.signal_subscribe(WATCHED, INTERFACE, "Tick", PATH, None, 0, lambda *a: log(f"tick {a[5].unpack()[0]}"))
bus.connect("closed", lambda *a: log("closed"))
Gio.bus_own_name_on_connection(bus, NAME, 0, None, lambda *a: log("lost"))
GLib.MainLoop().run()
