"""A service whose memory and whose database belong together: it counts in both."""
import os
import socket
import sqlite3

token = os.urandom(8).hex()
db = sqlite3.connect("/var/lib/ledger/ledger.db", isolation_level=None)
db.execute("PRAGMA journal_mode=WAL")
db.execute("PRAGMA mmap_size=1048576")
db.execute("CREATE TABLE IF NOT EXISTS entries (n INTEGER)")
count = db.execute("SELECT count(*) FROM entries").fetchone()[0]
with open("/etc/ledger.conf") as file:
    config = file.read().strip()
server = socket.create_server(("127.0.0.1", 7301))
while True:
    peer, _ = server.accept()
    if peer.recv(100).decode().strip() == "add":
        count += 1
        db.execute("INSERT INTO entries VALUES (?)", (count,))
    rows = db.execute("SELECT count(*), max(n) FROM entries").fetchone()
    sound = db.execute("PRAGMA integrity_check").fetchone()[0]
    peer.sendall(f"{token} {count} {rows[0]} {rows[1]} {sound} {config}\n".encode())
    peer.close()
