//! Databases, caches, directories, queues, brokers.

use crate::daemons::daemon::{Ask, Daemon, Expected, Memory};

/// A line of the redis protocol in, a line with this out.
const REDIS_PUT: &[(&[u8], &[u8])] = &[(b"SET fastboot kept\r\n", b"+OK")];
const REDIS_SHOWS: &[(&[u8], &[u8])] = &[(b"GET fastboot\r\n", b"$4\r\nkept")];
const REDIS_PING: &[(&[u8], &[u8])] = &[(b"PING\r\n", b"+PONG")];

pub(super) const DAEMONS: &[Daemon] = &[
    Daemon {
        name: "redis",
        family: "cache",
        unit: "redis-server.service",
        packages: &["redis-server"],
        setup: "sed -i '/^save /d; s/^appendonly .*/appendonly no/' /etc/redis/redis.conf
            echo 'save \"\"' >> /etc/redis/redis.conf",
        ask: Ask::Talk { port: 6379, turns: REDIS_PING },
        memory: Some(Memory {
            put: Ask::Talk { port: 6379, turns: REDIS_PUT },
            shows: Ask::Talk { port: 6379, turns: REDIS_SHOWS },
        }),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "valkey",
        family: "cache",
        unit: "valkey-server.service",
        packages: &["valkey-server"],
        setup: "sed -i '/^save /d; s/^port .*/port 6380/' /etc/valkey/valkey.conf
            echo 'save \"\"' >> /etc/valkey/valkey.conf",
        ask: Ask::Talk { port: 6380, turns: REDIS_PING },
        memory: Some(Memory {
            put: Ask::Talk { port: 6380, turns: REDIS_PUT },
            shows: Ask::Talk { port: 6380, turns: REDIS_SHOWS },
        }),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "memcached",
        family: "cache",
        unit: "memcached.service",
        packages: &["memcached"],
        ask: Ask::Talk { port: 11211, turns: &[(b"version\r\n", b"VERSION ")] },
        memory: Some(Memory {
            put: Ask::Talk { port: 11211, turns: &[(b"set fastboot 0 0 4\r\nkept\r\n", b"STORED")] },
            shows: Ask::Talk { port: 11211, turns: &[(b"get fastboot\r\n", b"kept")] },
        }),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "mariadb",
        family: "database",
        unit: "mariadb.service",
        packages: &["mariadb-server"],
        ask: Ask::Shell { script: "mariadb -NBe 'select 40 + 2'", has: "42" },
        expected: Expected::Refused("writes to /var/lib"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "postgresql",
        family: "database",
        unit: "postgresql@17-main.service",
        packages: &["postgresql"],
        ask: Ask::Shell { script: "cd /; runuser -u postgres -- psql -Atc 'select 40 + 2'", has: "42" },
        expected: Expected::Refused("writes to /var/lib"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "pgbouncer",
        family: "database",
        unit: "pgbouncer.service",
        packages: &["pgbouncer", "postgresql-client"],
        files: &[(
            "/etc/pgbouncer/pgbouncer.ini",
            "[databases]\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = 6432\nauth_type = any\nadmin_users = admin\n\
             unix_socket_dir = /run/postgresql\npidfile = /run/postgresql/pgbouncer.pid\nlogfile = /var/log/postgresql/pgbouncer.log\n",
        )],
        ask: Ask::Shell {
            script: "psql -h 127.0.0.1 -p 6432 -U admin -Atc 'show version' pgbouncer",
            has: "PgBouncer",
        },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "slapd",
        family: "directory",
        unit: "slapd.service",
        packages: &["slapd", "ldap-utils"],
        ask: Ask::Shell {
            script: "ldapsearch -x -LLL -H ldap://127.0.0.1 -b '' -s base namingContexts",
            has: "namingContexts:",
        },
        expected: Expected::Refused("writes to /var/lib"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "etcd",
        family: "database, Go",
        unit: "etcd.service",
        packages: &["etcd-server"],
        ask: Ask::Http { port: 2379, path: "/health", has: "true" },
        expected: Expected::Refused("writes to /var/lib"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "beanstalkd",
        family: "queue",
        unit: "beanstalkd.service",
        packages: &["beanstalkd"],
        ask: Ask::Talk { port: 11300, turns: &[(b"stats\r\n", b"OK ")] },
        memory: Some(Memory {
            put: Ask::Talk { port: 11300, turns: &[(b"put 1 0 60 4\r\nkept\r\n", b"INSERTED")] },
            shows: Ask::Talk { port: 11300, turns: &[(b"peek-ready\r\n", b"kept")] },
        }),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "gearman",
        family: "queue",
        unit: "gearman-job-server.service",
        packages: &["gearman-job-server"],
        ask: Ask::Talk { port: 4730, turns: &[(b"version\n", b"OK ")] },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "nats",
        family: "messaging, Go",
        unit: "nats-server.service",
        packages: &["nats-server"],
        ask: Ask::Talk { port: 4222, turns: &[(b"", b"INFO "), (b"CONNECT {}\r\nPING\r\n", b"PONG")] },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "mosquitto",
        family: "messaging",
        unit: "mosquitto.service",
        packages: &["mosquitto", "mosquitto-clients"],
        setup: "sed -i 's/^persistence .*/persistence false/' /etc/mosquitto/mosquitto.conf",
        ask: Ask::Shell {
            script: "(sleep 0.3; mosquitto_pub -t asked -m answered) & mosquitto_sub -t asked -C 1 -W 5",
            has: "answered",
        },
        memory: Some(Memory {
            put: Ask::Shell { script: "mosquitto_pub -r -t fastboot -m kept", has: "" },
            shows: Ask::Shell { script: "mosquitto_sub -t fastboot -C 1 -W 1", has: "kept" },
        }),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "rabbitmq",
        family: "messaging, Erlang",
        unit: "rabbitmq-server.service",
        packages: &["rabbitmq-server"],
        ask: Ask::Talk { port: 5672, turns: &[(b"AMQP\0\0\x09\x01", b"AMQPLAIN")] },
        expected: Expected::Refused("writes to /var/lib"),
        ..Daemon::DEFAULT
    },
];
