#!/usr/bin/python3
"""Counts calls on the bus and writes down what happens to another name. dbus-next: pure Python with asyncio."""
import asyncio
import sys

from dbus_next import BusType, Message, MessageType
from dbus_next.aio import MessageBus
from dbus_next.service import ServiceInterface, method, signal

NAME, WATCHED = sys.argv[1:3]
INTERFACE = "com.example.Count"
PATH = "/com/example/Count"


def log(line):
    with open(f"/var/log/{NAME}", "a") as file:
        file.write(line + "\n")


class Count(ServiceInterface):
    def __init__(self):
        super().__init__(INTERFACE)
        self.count = 0

    @method()
    def Next(self) -> "u":
        self.count += 1
        self.Tick()
        return self.count

    @method()
    async def Ask(self, other: "s") -> "u":
        return (await bus.call(Message(destination=other, path=PATH, interface=INTERFACE, member="Next"))).body[0]

    @signal()
    def Tick(self) -> "u":
        return self.count


def heard(message):
    if message.message_type != MessageType.SIGNAL:
        return
    if message.member == "NameOwnerChanged" and message.body[0] == WATCHED:
        name, old, new = message.body
        log(f"{name} {'had' if old else 'none'} {'has' if new else 'none'}")
    elif message.member == "Tick":
        log(f"tick {message.body[0]}")


async def main():
    global bus
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    bus.add_message_handler(heard)
    for rule in (f"type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='{WATCHED}'",
                 f"type='signal',sender='{WATCHED}',interface='{INTERFACE}',member='Tick'"):
        await bus.call(Message(destination="org.freedesktop.DBus", path="/org/freedesktop/DBus",
                               interface="org.freedesktop.DBus", member="AddMatch", signature="s", body=[rule]))
    bus.export(PATH, Count())
    await bus.request_name(NAME)
    await asyncio.Future()


asyncio.run(main())
