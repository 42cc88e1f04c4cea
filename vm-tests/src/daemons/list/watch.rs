//! Monitoring, and exporters written in Go.

use crate::daemons::daemon::{Ask, Daemon, Expected, Memory};

pub(super) const DAEMONS: &[Daemon] = &[
    Daemon {
        name: "prometheus",
        family: "monitoring, Go",
        unit: "prometheus.service",
        packages: &["prometheus"],
        ask: Ask::Http { port: 9090, path: "/-/ready", has: "Ready" },
        expected: Expected::Refused("writes to /var/lib"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "node-exporter",
        family: "monitoring, Go",
        unit: "prometheus-node-exporter.service",
        packages: &["prometheus-node-exporter"],
        ask: Ask::Http { port: 9100, path: "/metrics", has: "node_load1" },
        expected: Expected::Refused("an established TCP connection"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "alertmanager",
        family: "monitoring, Go",
        unit: "prometheus-alertmanager.service",
        packages: &["prometheus-alertmanager"],
        setup: "echo 'ARGS=\"--cluster.listen-address=\"' > /etc/default/prometheus-alertmanager",
        ask: Ask::Http { port: 9093, path: "/-/ready", has: "OK" },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "pushgateway",
        family: "monitoring, Go",
        unit: "prometheus-pushgateway.service",
        packages: &["prometheus-pushgateway"],
        // Debian has it write its values to a file when it stops.
        setup: "echo 'ARGS=\"--persistence.file=\"' > /etc/default/prometheus-pushgateway",
        ask: Ask::Http { port: 9091, path: "/-/ready", has: "OK" },
        memory: Some(Memory {
            put: Ask::Talk {
                port: 9091,
                turns: &[(
                    b"PUT /metrics/job/fastboot HTTP/1.0\r\nContent-Length: 7\r\n\r\nkept 1\n",
                    b" 200 ",
                )],
            },
            shows: Ask::Http { port: 9091, path: "/metrics", has: "kept{" },
        }),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "blackbox-exporter",
        family: "monitoring, Go",
        unit: "prometheus-blackbox-exporter.service",
        packages: &["prometheus-blackbox-exporter"],
        ask: Ask::Http { port: 9115, path: "/metrics", has: "blackbox_exporter_build_info" },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "webhook",
        family: "web, Go",
        unit: "webhook.service",
        packages: &["webhook"],
        files: &[(
            "/etc/webhook.conf",
            "[{\"id\": \"ask\", \"execute-command\": \"/bin/echo\", \"include-command-output-in-response\": true,\n  \
             \"pass-arguments-to-command\": [{\"source\": \"string\", \"name\": \"webhook answers\"}]}]\n",
        )],
        ask: Ask::Http { port: 9000, path: "/hooks/ask", has: "webhook answers" },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "munin-node",
        family: "monitoring, Perl",
        unit: "munin-node.service",
        packages: &["munin-node"],
        ask: Ask::Talk { port: 4949, turns: &[(b"", b"# munin node at"), (b"version\n", b"version")] },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "monit",
        family: "monitoring",
        unit: "monit.service",
        packages: &["monit"],
        files: &[(
            "/etc/monit/conf.d/web",
            "set httpd port 2812 and use address 127.0.0.1 allow 127.0.0.1\n",
        )],
        ask: Ask::Http { port: 2812, path: "/", has: "Monit" },
        expected: Expected::Refused("writes to /var/lib"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "collectd",
        family: "monitoring",
        unit: "collectd.service",
        packages: &["collectd-core", "collectd-utils"],
        files: &[(
            "/etc/collectd/collectd.conf",
            "FQDNLookup false\nLoadPlugin uptime\nLoadPlugin unixsock\n<Plugin unixsock>\n SocketFile \"/run/collectd-unixsock\"\n\
             </Plugin>\n",
        )],
        ask: Ask::Shell { script: "collectdctl -s /run/collectd-unixsock listval", has: "uptime" },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "fail2ban",
        family: "security, Python",
        unit: "fail2ban.service",
        packages: &["fail2ban", "python3-systemd"],
        files: &[("/etc/fail2ban/jail.d/defaults-debian.conf", "[sshd]\nenabled = false\n")],
        ask: Ask::Shell { script: "fail2ban-client ping", has: "pong" },
        expected: Expected::Refused("writes to /var/lib"),
        ..Daemon::DEFAULT
    },
];
