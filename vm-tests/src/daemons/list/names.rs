//! DNS servers, time, syslog, SNMP. Every DNS server knows one name of its own or asks unbound for
//! it.

use std::net::Ipv4Addr;

use crate::daemons::daemon::{Ask, Daemon, Expected, GoesOn};

const NAME: &str = "www.fastboot.test";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
const ZONE: &str = "$ORIGIN fastboot.test.\n$TTL 300\n@ SOA ns.fastboot.test. root.fastboot.test. 1 3600 600 86400 300\n\
                    @ NS ns.fastboot.test.\nns A 127.0.0.1\nwww A 192.0.2.77\n";
/// Forwarders ask unbound; with --only it has to be there too.
const WITH_UNBOUND: &str =
    "systemctl unmask --quiet unbound.service; systemctl enable --quiet unbound.service";

const fn dns(port: u16) -> Ask {
    Ask::Dns { port, name: NAME, address: ADDRESS }
}

pub(super) const DAEMONS: &[Daemon] = &[
    Daemon {
        name: "unbound",
        family: "DNS",
        unit: "unbound.service",
        packages: &["unbound"],
        files: &[(
            "/etc/unbound/unbound.conf.d/test.conf",
            "server:\n port: 5302\n do-not-query-localhost: no\n local-zone: \"fastboot.test.\" static\n \
             local-data: \"www.fastboot.test. A 192.0.2.77\"\n module-config: \"iterator\"\n",
        )],
        setup: "rm -f /etc/unbound/unbound.conf.d/root-auto-trust-anchor-file.conf",
        ask: dns(5302),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "bind9",
        family: "DNS",
        unit: "named.service",
        packages: &["bind9"],
        files: &[
            (
                "/etc/bind/named.conf.options",
                "options {\n directory \"/var/cache/bind\";\n listen-on port 5301 { 127.0.0.1; };\n listen-on-v6 { none; };\n \
                 recursion no;\n dnssec-validation no;\n};\n",
            ),
            (
                "/etc/bind/named.conf.local",
                "zone \"fastboot.test\" { type master; file \"/etc/bind/db.test\"; };\n",
            ),
            ("/etc/bind/db.test", ZONE),
        ],
        ask: dns(5301),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "knot",
        family: "DNS",
        unit: "knot.service",
        packages: &["knot"],
        files: &[
            (
                "/etc/knot/knot.conf",
                "server:\n    rundir: \"/run/knot\"\n    user: knot:knot\n    listen: 127.0.0.1@5303\n\
                 database:\n    storage: \"/var/lib/knot\"\n\
                 zone:\n  - domain: fastboot.test\n    file: \"/etc/knot/db.test\"\n    zonefile-sync: -1\n    journal-content: none\n",
            ),
            ("/etc/knot/db.test", ZONE),
        ],
        ask: dns(5303),
        expected: Expected::Refused("writes to /var/lib"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "nsd",
        family: "DNS",
        unit: "nsd.service",
        packages: &["nsd"],
        files: &[
            (
                "/etc/nsd/nsd.conf.d/test.conf",
                "server:\n ip-address: 127.0.0.1@5304\nremote-control:\n control-enable: no\nzone:\n name: fastboot.test\n \
                 zonefile: /etc/nsd/db.test\n",
            ),
            ("/etc/nsd/db.test", ZONE),
        ],
        ask: dns(5304),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "dnsmasq",
        family: "DNS",
        unit: "dnsmasq.service",
        packages: &["dnsmasq"],
        files: &[(
            "/etc/dnsmasq.d/test.conf",
            "port=5305\nno-resolv\nno-hosts\naddress=/www.fastboot.test/192.0.2.77\n",
        )],
        ask: dns(5305),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "pdns",
        family: "DNS",
        unit: "pdns.service",
        packages: &["pdns-server", "pdns-backend-bind"],
        files: &[
            (
                "/etc/powerdns/pdns.conf",
                "launch=bind\nbind-config=/etc/powerdns/named.conf\nlocal-address=127.0.0.1\nlocal-port=5306\n\
                 security-poll-suffix=\n",
            ),
            (
                "/etc/powerdns/named.conf",
                "zone \"fastboot.test\" { type master; file \"/etc/powerdns/db.test\"; };\n",
            ),
            ("/etc/powerdns/db.test", ZONE),
        ],
        setup: "rm -f /etc/powerdns/pdns.d/*.conf",
        ask: dns(5306),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "dnsdist",
        family: "DNS",
        unit: "dnsdist.service",
        packages: &["dnsdist"],
        files: &[(
            "/etc/dnsdist/dnsdist.conf",
            "setLocal('127.0.0.1:5308')\nsetSecurityPollSuffix('')\nnewServer({address='127.0.0.1:5302', healthCheckMode='up'})\n",
        )],
        setup: WITH_UNBOUND,
        ask: dns(5308),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "chrony",
        family: "time",
        unit: "chrony.service",
        packages: &["chrony"],
        files: &[("/etc/chrony/conf.d/test.conf", "local stratum 8\nallow 127.0.0.0/8\n")],
        setup: "echo 'DAEMON_OPTS=\"-F 1 -x\"' > /etc/default/chrony
            rm -f /etc/chrony/sources.d/*; sed -i '/^pool/d; /^sourcedir/d' /etc/chrony/chrony.conf",
        // Version 4, from a client; the answer says: synchronised, version 4, from a server.
        ask: Ask::Udp {
            port: 123,
            say: &[
                0x23, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8,
            ],
            starts: &[0x24],
        },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "rsyslog",
        family: "syslog",
        unit: "rsyslog.service",
        packages: &["rsyslog"],
        files: &[(
            "/etc/rsyslog.d/test.conf",
            "module(load=\"imudp\")\ninput(type=\"imudp\" port=\"514\")\n",
        )],
        ask: Ask::Shell {
            script: "word=fastboot-$(cat /proc/sys/kernel/random/uuid); logger --server 127.0.0.1 --udp --port 514 $word
                for n in 1 2 3 4 5; do sleep 0.1; grep $word /var/log/syslog && exit; done; exit 1",
            has: "fastboot-",
        },
        goes_on: &[GoesOn { has: &[" fd ", ": nothing → ", "/var/log/"], why: "a log is opened with its first message" }],
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "snmpd",
        family: "monitoring",
        unit: "snmpd.service",
        packages: &["snmpd", "snmp"],
        files: &[(
            "/etc/snmp/snmpd.conf",
            "agentaddress 127.0.0.1\nrocommunity public\nrwcommunity secret\n\
             master no\n",
        )],
        ask: Ask::Shell { script: "snmpget -v2c -c public 127.0.0.1 1.3.6.1.2.1.1.3.0", has: "Timeticks" },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "exim4",
        family: "mail",
        unit: "exim4.service",
        packages: &["exim4-daemon-light"],
        ask: Ask::Talk {
            port: 25,
            turns: &[(b"", b"220 "), (b"EHLO client.test\r\n", b"250 "), (b"QUIT\r\n", b"221 ")],
        },
        ..Daemon::DEFAULT
    },
];
