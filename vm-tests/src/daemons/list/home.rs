//! Desktop, media, chat, file servers, log-in services.

use crate::daemons::daemon::{Ask, Daemon, Expected, Memory};

pub(super) const DAEMONS: &[Daemon] = &[
    Daemon {
        name: "cups",
        family: "desktop",
        unit: "cups.service",
        packages: &["cups", "cups-client", "cups-ipp-utils"],
        ask: Ask::Shell { script: "lpstat -h 127.0.0.1:631 -r", has: "scheduler is running" },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "avahi",
        family: "desktop",
        unit: "avahi-daemon.service",
        packages: &["avahi-daemon", "avahi-utils"],
        ask: Ask::Shell {
            script: "busctl call org.freedesktop.Avahi / org.freedesktop.Avahi.Server GetState",
            has: "i 2",
        },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "accounts-daemon",
        family: "desktop",
        unit: "accounts-daemon.service",
        packages: &["accountsservice", "polkitd"],
        ask: Ask::Shell {
            script: "busctl get-property org.freedesktop.Accounts /org/freedesktop/Accounts \
                     org.freedesktop.Accounts DaemonVersion",
            has: "s \"",
        },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "upower",
        family: "desktop",
        unit: "upower.service",
        packages: &["upower"],
        ask: Ask::Shell {
            script: "busctl get-property org.freedesktop.UPower /org/freedesktop/UPower org.freedesktop.UPower DaemonVersion",
            has: "s \"",
        },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "xvfb",
        family: "desktop",
        unit: "xvfb.service",
        packages: &["xvfb", "x11-utils"],
        files: &[(
            "/etc/systemd/system/xvfb.service",
            "[Unit]\nDescription=X server without a screen\n[Service]\nDynamicUser=yes\n\
             ExecStart=/usr/bin/Xvfb :7 -screen 0 800x600x24 -nolisten tcp -ac -noreset\n[Install]\nWantedBy=multi-user.target\n",
        )],
        ask: Ask::Shell { script: "DISPLAY=:7 xdpyinfo", has: "800x600" },
        memory: Some(Memory {
            put: Ask::Shell { script: "DISPLAY=:7 xprop -root -f FASTBOOT 8s -set FASTBOOT kept", has: "" },
            shows: Ask::Shell { script: "DISPLAY=:7 xprop -root FASTBOOT", has: "kept" },
        }),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "xrdp",
        family: "desktop",
        unit: "xrdp.service",
        packages: &["xrdp"],
        ask: Ask::Talk { port: 3389, turns: &[(b"\x03\0\0\x0b\x06\xe0\0\0\0\0\0", b"\x03\0\0")] },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "mpd",
        family: "media",
        unit: "mpd.service",
        packages: &["mpd"],
        ask: Ask::Talk { port: 6600, turns: &[(b"", b"OK MPD"), (b"ping\n", b"OK")] },
        expected: Expected::Refused("writes to /var/lib"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "transmission",
        family: "media",
        unit: "transmission-daemon.service",
        packages: &["transmission-daemon"],
        ask: Ask::Talk {
            port: 9091,
            turns: &[(b"GET /transmission/rpc HTTP/1.0\r\nHost: localhost\r\n\r\n", b"HTTP/1.0 401")],
        },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "ngircd",
        family: "chat",
        unit: "ngircd.service",
        packages: &["ngircd"],
        ask: Ask::Talk {
            port: 6667,
            turns: &[(b"NICK asker\r\nUSER a a a :a\r\n", b" 001 asker"), (b"QUIT\r\n", b"")],
        },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "prosody",
        family: "chat, Lua",
        unit: "prosody.service",
        packages: &["prosody"],
        ask: Ask::Talk {
            port: 5222,
            turns: &[(
                b"<?xml version='1.0'?><stream:stream to='localhost' xmlns='jabber:client' \
                  xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>",
                b"stream:features",
            )],
        },
        // Through a buffered stream, from which the ids of its streams come.
        expected: Expected::Refused("holds /dev/urandom open"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "vsftpd",
        family: "files",
        unit: "vsftpd.service",
        packages: &["vsftpd"],
        setup: "sed -i 's/^listen=.*/listen=YES/; s/^listen_ipv6=.*/listen_ipv6=NO/' /etc/vsftpd.conf",
        ask: Ask::Talk { port: 21, turns: &[(b"", b"220 "), (b"QUIT\r\n", b"221 ")] },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "rsync",
        family: "files",
        unit: "rsync.service",
        packages: &["rsync"],
        files: &[("/etc/rsyncd.conf", "[etc]\npath = /etc\ncomment = fastboot\nread only = yes\n")],
        ask: Ask::Shell { script: "rsync rsync://127.0.0.1/", has: "fastboot" },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "ssh",
        family: "log-in",
        unit: "ssh.service",
        packages: &["openssh-server", "openssh-client"],
        ask: Ask::Shell { script: "ssh-keyscan -t ed25519 127.0.0.1", has: "ssh-ed25519" },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "freeradius",
        family: "log-in",
        unit: "freeradius.service",
        packages: &["freeradius", "freeradius-utils"],
        setup: "sed -i '1i radtest Cleartext-Password := \"secret\"' /etc/freeradius/3.0/mods-config/files/authorize",
        ask: Ask::Shell { script: "radtest radtest secret 127.0.0.1 0 testing123", has: "Access-Accept" },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "krb5-kdc",
        family: "log-in",
        unit: "krb5-kdc.service",
        packages: &["krb5-kdc", "krb5-admin-server", "krb5-user"],
        files: &[
            (
                "/etc/krb5.conf",
                "[libdefaults]\n default_realm = FASTBOOT.TEST\n[realms]\n FASTBOOT.TEST = {\n  kdc = 127.0.0.1\n }\n",
            ),
            (
                "/etc/krb5kdc/kdc.conf",
                "[kdcdefaults]\n kdc_ports = 88\n[realms]\n FASTBOOT.TEST = {\n  database_name = /var/lib/krb5kdc/principal\n  \
                 key_stash_file = /etc/krb5kdc/stash\n }\n",
            ),
        ],
        setup: "kdb5_util create -s -P master >/dev/null; kadmin.local -q 'addprinc -pw secret asker' >/dev/null",
        ask: Ask::Shell {
            script: "echo secret | kinit -c /tmp/cc asker && klist -c /tmp/cc",
            has: "krbtgt/FASTBOOT.TEST",
        },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "coturn",
        family: "network",
        unit: "coturn.service",
        packages: &["coturn"],
        files: &[("/etc/turnserver.conf", "listening-ip=127.0.0.1\nsyslog\nno-cli\nno-tls\nno-dtls\n")],
        // A STUN binding request and the beginning of its success response.
        ask: Ask::Udp { port: 3478, say: b"\0\x01\0\0\x21\x12\xa4\x42fastboot-tst", starts: b"\x01\x01" },
        expected: Expected::Refused("writes to /var/lib"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "tor",
        family: "network",
        unit: "tor@default.service",
        packages: &["tor"],
        setup: "echo 'ControlPort 9051' >> /etc/tor/torrc",
        ask: Ask::Talk { port: 9051, turns: &[(b"PROTOCOLINFO\r\n", b"250 OK")] },
        // Its random generator lies in memory that is wiped on fork; finding it empty, tor ends
        // itself (crypto_rand_fast.c).
        expected: Expected::Refused("trial restore: "),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "dictd",
        family: "network",
        unit: "dictd.service",
        packages: &["dictd", "dict-vera"],
        ask: Ask::Talk { port: 2628, turns: &[(b"", b"220 "), (b"SHOW DB\r\n", b"vera")] },
        expected: Expected::Refused("is made anew at each boot"),
        ..Daemon::DEFAULT
    },
];
