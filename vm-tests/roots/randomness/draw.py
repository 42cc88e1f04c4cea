"""Draws from every generator that a Python process can reach, libraries of C included. Draws once at the start, so that each has a
state, and once more for each file that appears. With --hook it does after a restore what its author can do."""
import ctypes
import os
import random
import secrets
import select
import socket
import ssl
import sys
import uuid

OUT, TRIGGER = sys.argv[1], "/run/draw"


def library(name, call):
    loaded = ctypes.CDLL(name)
    return lambda: call(loaded)


def fill(function, *arguments):
    buffer = ctypes.create_string_buffer(16)
    function(buffer, *arguments)
    return buffer.raw.hex()


def gcrypt(loaded):
    return fill(lambda buffer: loaded.gcry_randomize(buffer, ctypes.c_size_t(16), 1))


def boringssl(loaded):
    return fill(lambda buffer: loaded.RAND_bytes(buffer, ctypes.c_size_t(16)))


libc, gnutls = "libc.so.6", "libgnutls.so.30"
GENERATORS = {
    "getrandom": library(libc, lambda c: fill(lambda b: c.getrandom(b, ctypes.c_size_t(16), 0))),
    "getrandom system call": library(libc, lambda c: fill(lambda b: c.syscall(318, b, ctypes.c_size_t(16), 0))),
    "arc4random": library(libc, lambda c: fill(lambda b: c.arc4random_buf(b, ctypes.c_size_t(16)))),
    "libc random": library(libc, lambda c: "".join(f"{c.random():08x}" for _ in range(4))),
    "OpenSSL": library("libcrypto.so.3", lambda c: fill(lambda b: c.RAND_bytes(b, 16))),
    "OpenSSL private": library("libcrypto.so.3", lambda c: fill(lambda b: c.RAND_priv_bytes(b, 16))),
    "GnuTLS nonce": library(gnutls, lambda c: fill(lambda b: c.gnutls_rnd(0, b, ctypes.c_size_t(16)))),
    "GnuTLS random": library(gnutls, lambda c: fill(lambda b: c.gnutls_rnd(1, b, ctypes.c_size_t(16)))),
    "GnuTLS key": library(gnutls, lambda c: fill(lambda b: c.gnutls_rnd(2, b, ctypes.c_size_t(16)))),
    "libgcrypt": library("libgcrypt.so.20", gcrypt),
    "BoringSSL": library("/usr/lib/x86_64-linux-gnu/android/libcrypto.so.0", boringssl),
    "Python random": lambda: f"{random.getrandbits(128):032x}",
    "Python secrets": lambda: secrets.token_hex(16),
    "Python ssl": lambda: ssl.RAND_bytes(16).hex(),
    "Python uuid4": lambda: uuid.uuid4().hex,
}
# The library wants to be asked for its version before anything else.
ctypes.CDLL("libgcrypt.so.20").gcry_check_version(None)
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
name = os.memfd_create("fastboot-hooks")
if "--hook" in sys.argv:
    os.write(name, b"%d\n" % theirs.fileno())


def draw():
    return "".join(f"{name}: {generator()}\n" for name, generator in GENERATORS.items())


before = draw()
while True:
    if select.select([ours], [], [], 0.1)[0]:
        if ours.recv(64) == b"after-restore":
            fresh = os.urandom(32)
            random.seed(fresh)
            ssl.RAND_add(fresh, 32.0)
            gnutls_library = ctypes.CDLL(gnutls)
            gnutls_library.gnutls_rnd_refresh()
        ours.send(b"ok")
    if os.path.exists(TRIGGER) and not os.path.exists(OUT):
        with open(OUT + ".new", "w") as file:
            file.write(draw())
        os.rename(OUT + ".new", OUT)
