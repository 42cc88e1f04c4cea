//! Mail: transport, delivery, filters.

use crate::daemons::daemon::{Ask, Daemon, Expected};

/// A milter client's offer of protocol version 6.
const MILTER_OFFER: &[u8] = b"\0\0\0\x0dO\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff";

pub(super) const DAEMONS: &[Daemon] = &[
    Daemon {
        name: "postfix",
        family: "mail",
        unit: "postfix.service",
        packages: &["postfix"],
        ask: Ask::Talk {
            port: 25,
            turns: &[(b"", b"220 "), (b"EHLO client.test\r\n", b"250 "), (b"QUIT\r\n", b"221 ")],
        },
        expected: Expected::Refused("writes to /var/lib"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "dovecot",
        family: "mail",
        unit: "dovecot.service",
        packages: &["dovecot-imapd"],
        ask: Ask::Talk {
            port: 143,
            turns: &[(b"", b"* OK"), (b"a CAPABILITY\r\n", b"a OK"), (b"b LOGOUT\r\n", b"b OK")],
        },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "rspamd",
        family: "mail",
        unit: "rspamd.service",
        packages: &["rspamd"],
        ask: Ask::Http { port: 11334, path: "/ping", has: "pong" },
        expected: Expected::Refused("writes to /var/lib"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "spamd",
        family: "mail, Perl",
        unit: "spamd.service",
        packages: &["spamd", "spamassassin"],
        ask: Ask::Talk { port: 783, turns: &[(b"PING SPAMC/1.5\r\n\r\n", b"PONG")] },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "postgrey",
        family: "mail, Perl",
        unit: "postgrey.service",
        packages: &["postgrey"],
        ask: Ask::Talk {
            port: 10023,
            turns: &[(
                b"request=smtpd_access_policy\nclient_address=192.0.2.1\nclient_name=a.test\n\
                  sender=a@a.test\nrecipient=b@b.test\n\n",
                b"action=",
            )],
        },
        expected: Expected::Refused("writes to /var/lib"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "amavis",
        family: "mail, Perl",
        unit: "amavis.service",
        packages: &["amavisd-new"],
        files: &[(
            "/etc/amavis/conf.d/60-test",
            "use strict;\n$myhostname = 'mail.test.example';\n$max_servers = 2;\n1;\n",
        )],
        ask: Ask::Talk {
            port: 10024,
            turns: &[(b"", b"220 "), (b"EHLO client.test\r\n", b"250 "), (b"QUIT\r\n", b"221 ")],
        },
        expected: Expected::Refused("writes to /var/lib"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "opendkim",
        family: "mail",
        unit: "opendkim.service",
        packages: &["opendkim"],
        files: &[],
        setup: "sed -i -E '/^Socket/d' /etc/opendkim.conf; echo 'Socket inet:8891@localhost' >> /etc/opendkim.conf
            echo 'Domain test.example' >> /etc/opendkim.conf; echo 'Mode v' >> /etc/opendkim.conf",
        ask: Ask::Talk { port: 8891, turns: &[(MILTER_OFFER, b"O")] },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "opendmarc",
        family: "mail",
        unit: "opendmarc.service",
        packages: &["opendmarc"],
        setup: "sed -i -E '/^Socket/d' /etc/opendmarc.conf; echo 'Socket inet:8893@localhost' >> /etc/opendmarc.conf",
        ask: Ask::Talk { port: 8893, turns: &[(MILTER_OFFER, b"O")] },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "postsrsd",
        family: "mail",
        unit: "postsrsd.service",
        packages: &["postsrsd"],
        setup: "sed -i -E 's/^#?SRS_DOMAIN=.*/SRS_DOMAIN=test.example/' /etc/default/postsrsd",
        ask: Ask::Talk { port: 10001, turns: &[(b"get a@b.test\n", b"200 ")] },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "saslauthd",
        family: "mail",
        unit: "saslauthd.service",
        packages: &["sasl2-bin"],
        setup: "
            useradd --create-home mailer
            echo mailer:secret | chpasswd
            sed -i 's/^MECHANISMS=.*/MECHANISMS=\"shadow\"/' /etc/default/saslauthd",
        ask: Ask::Shell { script: "testsaslauthd -u mailer -p secret", has: "0: OK" },
        ..Daemon::DEFAULT
    },
];
