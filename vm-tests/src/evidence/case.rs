//! The services, and what is changed under them while the machine is off.

use std::net::Ipv4Addr;

use crate::daemons::Ask;

/// One service, without a word about fastboot in its unit.
#[derive(Debug)]
pub(super) struct Case {
    pub name: &'static str,
    pub unit: &'static str,
    pub packages: &'static [&'static str],
    pub files: &'static [(&'static str, &'static str)],
    pub ask: Ask,
    /// In the order of the boots; each is taken back before the next.
    pub changes: [Change; 2],
}

impl Case {
    /// Name of its test.
    pub fn test(&self) -> String {
        format!("evidence/{}", self.name)
    }
}

/// What is done to one path of the machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    /// What it is, for the name of the check.
    pub what: &'static str,
    /// The path that is changed.
    pub path: &'static str,
    pub how: How,
    /// Path that `fastboot status` has to name.
    pub named: &'static str,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum How {
    /// A line is added at its end.
    Append(&'static str),
    /// It is made, with this content.
    Create(&'static str),
    /// The link leads here from now on.
    Turn(&'static str),
}

const fn edited(path: &'static str, line: &'static str) -> Change {
    Change { what: "its configuration was edited", path, how: How::Append(line), named: path }
}

const fn source(path: &'static str, line: &'static str) -> Change {
    Change { what: "its source was edited", path, how: How::Append(line), named: path }
}

const fn added(path: &'static str, content: &'static str, dir: &'static str) -> Change {
    Change { what: "a file came into a directory that it lists", path, how: How::Create(content), named: dir }
}

macro_rules! unit {
    ($command:literal) => {
        concat!(
            "[Unit]\nAfter=network.target\n[Service]\nType=exec\nDynamicUser=yes\nWorkingDirectory=/srv/apps\n",
            "ExecStart=",
            $command,
            "\n[Install]\nWantedBy=multi-user.target\n"
        )
    };
}

const fn dns(port: u16) -> Ask {
    Ask::Dns { port, name: "www.fastboot.test", address: Ipv4Addr::new(192, 0, 2, 77) }
}

pub(super) const CASES: &[Case] = &[
    Case {
        name: "lighttpd",
        unit: "lighttpd.service",
        packages: &["lighttpd"],
        files: &[],
        ask: Ask::Http { port: 8082, path: "/lighttpd.txt", has: "lighttpd answers" },
        changes: [
            edited("/etc/lighttpd/lighttpd.conf", "server.max-connections = 512\n"),
            Change {
                what: "a link to its configuration was turned",
                path: "/etc/lighttpd/conf-enabled/50-tag.conf",
                how: How::Turn("../conf-available/51-tag.conf"),
                named: "/etc/lighttpd/conf-enabled/50-tag.conf",
            },
        ],
    },
    Case {
        name: "unbound",
        unit: "unbound.service",
        packages: &["unbound"],
        files: &[(
            "/etc/unbound/unbound.conf.d/test.conf",
            "server:\n port: 5302\n do-not-query-localhost: no\n local-zone: \"fastboot.test.\" static\n \
             local-data: \"www.fastboot.test. A 192.0.2.77\"\n module-config: \"iterator\"\n",
        )],
        ask: dns(5302),
        changes: [
            edited(
                "/etc/unbound/unbound.conf.d/test.conf",
                " local-data: \"b.fastboot.test. A 192.0.2.78\"\n",
            ),
            added(
                "/etc/unbound/unbound.conf.d/more.conf",
                "server:\n verbosity: 1\n",
                "/etc/unbound/unbound.conf.d",
            ),
        ],
    },
    Case {
        name: "dnsmasq",
        unit: "dnsmasq.service",
        packages: &["dnsmasq"],
        files: &[(
            "/etc/dnsmasq.d/test.conf",
            "port=5305\nno-resolv\nno-hosts\naddress=/www.fastboot.test/192.0.2.77\n",
        )],
        ask: dns(5305),
        changes: [
            edited("/etc/dnsmasq.d/test.conf", "address=/b.fastboot.test/192.0.2.78\n"),
            added("/etc/dnsmasq.d/more.conf", "cache-size=200\n", "/etc/dnsmasq.d"),
        ],
    },
    Case {
        name: "node",
        unit: "node.service",
        packages: &["nodejs"],
        files: &[
            ("/srv/apps/server.js", include_str!("../../roots/evidence/server.js")),
            ("/srv/apps/answer.js", include_str!("../../roots/evidence/answer.js")),
            ("/etc/systemd/system/node.service", unit!("/usr/bin/node server.js")),
        ],
        ask: Ask::Http { port: 7009, path: "/", has: "node answers" },
        changes: [
            source("/srv/apps/server.js", "// edited\n"),
            source("/srv/apps/answer.js", "exports.answer = 'node answers otherwise\\n';\n"),
        ],
    },
    Case {
        name: "puma",
        unit: "puma.service",
        packages: &["puma"],
        files: &[
            ("/srv/apps/config.ru", include_str!("../../roots/daemons/app.config.ru")),
            (
                "/etc/systemd/system/puma.service",
                unit!("/usr/bin/puma --bind tcp://127.0.0.1:7007 --environment production config.ru"),
            ),
        ],
        ask: Ask::Http { port: 7007, path: "/", has: "puma answers" },
        changes: [
            source("/srv/apps/config.ru", "# edited\n"),
            Change {
                what: "a library that it loads was edited",
                path: "/usr/lib/x86_64-linux-gnu/rubygems-integration/3.3.0/gems/puma-6.6.0/lib/puma/rack/builder.rb",
                how: How::Append("# edited\n"),
                named: "puma/rack/builder.rb",
            },
        ],
    },
    Case {
        name: "radicale",
        unit: "radicale.service",
        packages: &["radicale"],
        files: &[],
        ask: Ask::Http { port: 5232, path: "/.web/", has: "Radicale" },
        changes: [
            edited("/etc/radicale/config", "# edited\n"),
            // Python reads its compiled form and only asks this one for its time.
            source("/usr/lib/python3/dist-packages/radicale/config.py", "# edited\n"),
        ],
    },
    Case {
        name: "spamd",
        unit: "spamd.service",
        packages: &["spamd", "spamassassin"],
        files: &[],
        ask: Ask::Talk { port: 783, turns: &[(b"PING SPAMC/1.5\r\n\r\n", b"PONG")] },
        changes: [
            edited("/etc/spamassassin/local.cf", "report_safe 0\n"),
            added("/etc/spamassassin/zz_more.cf", "required_score 6.0\n", "/etc/spamassassin"),
        ],
    },
    Case {
        name: "uwsgi",
        unit: "uwsgi.service",
        packages: &["uwsgi-core", "uwsgi-plugin-python3"],
        files: &[
            ("/srv/wsgi/uwsgi.py", include_str!("../../roots/evidence/uwsgi.py")),
            ("/srv/wsgi/words.py", include_str!("../../roots/evidence/words.py")),
            (
                "/etc/systemd/system/uwsgi.service",
                unit!(
                    "/usr/bin/uwsgi --plugin python3 --http-socket 127.0.0.1:7021 --chdir /srv/wsgi --wsgi-file uwsgi.py"
                ),
            ),
        ],
        ask: Ask::Http { port: 7021, path: "/", has: "uwsgi answers" },
        changes: [source("/srv/wsgi/uwsgi.py", "# edited\n"), source("/srv/wsgi/words.py", "# edited\n")],
    },
    Case {
        name: "php-fpm",
        unit: "php8.4-fpm.service",
        packages: &["php8.4-fpm"],
        files: &[],
        ask: Ask::Shell { script: "test -S /run/php/php8.4-fpm.sock && echo there", has: "there" },
        changes: [
            edited("/etc/php/8.4/fpm/pool.d/www.conf", "; edited\n"),
            Change {
                what: "a link to its configuration was turned",
                path: "/etc/php/8.4/fpm/conf.d/20-ctype.ini",
                how: How::Turn("/etc/php/8.4/mods-available/calendar.ini"),
                named: "/etc/php/8.4/fpm/conf.d/20-ctype.ini",
            },
        ],
    },
];
