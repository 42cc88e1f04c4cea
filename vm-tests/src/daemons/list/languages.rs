//! A server in each language's usual harness, and what Debian packages in these languages. Those of
//! ours answer with their name at `/`, and keep a word in memory after `/keep`.

use crate::daemons::daemon::{Ask, Daemon, Expected, Memory};

macro_rules! app {
    ($name:literal) => {
        include_str!(concat!("../../../roots/daemons/", $name))
    };
}

/// A unit of ours. `%I` of Debian's packages would hide what runs.
macro_rules! unit {
    ($command:literal) => {
        concat!(
            "[Unit]\nAfter=network.target\n[Service]\nType=exec\nDynamicUser=yes\nWorkingDirectory=/srv/apps\n",
            "Environment=PYTHONDONTWRITEBYTECODE=1\nExecStart=",
            $command,
            "\n[Install]\nWantedBy=multi-user.target\n"
        )
    };
}

/// The word is put by `/keep` and seen at `path`.
const fn word(port: u16, path: &'static str) -> Option<Memory> {
    Some(Memory {
        put: Ask::Http { port, path: "/keep", has: "" },
        shows: Ask::Http { port, path, has: "kept" },
    })
}

pub(super) const DAEMONS: &[Daemon] = &[
    Daemon {
        name: "flask-gunicorn",
        family: "Python",
        unit: "flask.service",
        packages: &["python3-flask", "gunicorn"],
        files: &[
            ("/srv/apps/shop.py", app!("app.flask.py")),
            (
                "/etc/systemd/system/flask.service",
                unit!("/usr/bin/gunicorn --bind 127.0.0.1:7001 --workers 1 --threads 4 shop:application"),
            ),
        ],
        ask: Ask::Http { port: 7001, path: "/", has: "flask answers" },
        memory: word(7001, "/words"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "uvicorn",
        family: "Python",
        unit: "asgi.service",
        packages: &["python3-uvicorn", "uvicorn"],
        files: &[
            ("/srv/apps/asgi.py", app!("app.asgi.py")),
            (
                "/etc/systemd/system/asgi.service",
                unit!("/usr/bin/python3 -m uvicorn --host 127.0.0.1 --port 7002 asgi:application"),
            ),
        ],
        ask: Ask::Http { port: 7002, path: "/", has: "uvicorn answers" },
        memory: word(7002, "/"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "aiohttp",
        family: "Python",
        unit: "aiohttp.service",
        packages: &["python3-aiohttp"],
        files: &[
            ("/srv/apps/beat.py", app!("app.aiohttp.py")),
            ("/etc/systemd/system/aiohttp.service", unit!("/usr/bin/python3 beat.py")),
        ],
        ask: Ask::Http { port: 7003, path: "/", has: "aiohttp answers" },
        memory: word(7003, "/words"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "twisted",
        family: "Python",
        unit: "twisted.service",
        packages: &["python3-twisted"],
        files: &[
            ("/srv/apps/tree.tac", app!("app.twisted.py")),
            (
                "/etc/systemd/system/twisted.service",
                unit!("/usr/bin/twistd3 --nodaemon --pidfile= --python tree.tac"),
            ),
        ],
        ask: Ask::Http { port: 7004, path: "/", has: "twisted answers" },
        memory: word(7004, "/"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "radicale",
        family: "Python",
        unit: "radicale.service",
        packages: &["radicale"],
        // As its unit's own collections would be on a machine that has had some.
        setup: "install -d -o radicale -g radicale /var/lib/radicale/collections",
        ask: Ask::Http { port: 5232, path: "/.web/", has: "Radicale" },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "supervisor",
        family: "Python",
        unit: "supervisor.service",
        packages: &["supervisor"],
        files: &[(
            "/etc/supervisor/conf.d/sleeper.conf",
            "[program:sleeper]\ncommand=/usr/bin/sleep infinity\n",
        )],
        ask: Ask::Shell { script: "supervisorctl status", has: "RUNNING" },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "starman",
        family: "Perl",
        unit: "starman.service",
        packages: &["starman"],
        files: &[
            ("/srv/apps/app.psgi", app!("app.psgi")),
            (
                "/etc/systemd/system/starman.service",
                unit!("/usr/bin/starman --listen 127.0.0.1:7005 --workers 2 app.psgi"),
            ),
        ],
        ask: Ask::Http { port: 7005, path: "/here", has: "starman answers /here" },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "mojolicious",
        family: "Perl",
        unit: "mojo.service",
        packages: &["libmojolicious-perl"],
        files: &[
            ("/srv/apps/mojo.pl", app!("app.mojo.pl")),
            (
                "/etc/systemd/system/mojo.service",
                unit!("/usr/bin/perl mojo.pl daemon -m production -l http://127.0.0.1:7006"),
            ),
        ],
        ask: Ask::Http { port: 7006, path: "/", has: "mojolicious answers" },
        memory: word(7006, "/words"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "puma",
        family: "Ruby",
        unit: "puma.service",
        packages: &["puma"],
        files: &[
            ("/srv/apps/config.ru", app!("app.config.ru")),
            (
                "/etc/systemd/system/puma.service",
                unit!("/usr/bin/puma --bind tcp://127.0.0.1:7007 --environment production config.ru"),
            ),
        ],
        ask: Ask::Http { port: 7007, path: "/", has: "puma answers" },
        memory: word(7007, "/"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "webrick",
        family: "Ruby",
        unit: "webrick.service",
        packages: &["ruby-webrick", "ruby"],
        files: &[
            ("/srv/apps/bricks.rb", app!("app.webrick.rb")),
            ("/etc/systemd/system/webrick.service", unit!("/usr/bin/ruby bricks.rb")),
        ],
        ask: Ask::Http { port: 7008, path: "/", has: "webrick answers" },
        memory: word(7008, "/"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "node",
        family: "Node.js",
        unit: "node.service",
        packages: &["nodejs"],
        files: &[
            ("/srv/apps/server.js", app!("app.node.js")),
            ("/etc/systemd/system/node.service", unit!("/usr/bin/node server.js")),
        ],
        ask: Ask::Http { port: 7009, path: "/", has: "node answers" },
        memory: word(7009, "/"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "java",
        family: "JVM",
        unit: "java.service",
        packages: &["default-jdk-headless"],
        files: &[
            ("/srv/apps/App.java", app!("App.java")),
            ("/etc/systemd/system/java.service", unit!("/usr/bin/java -Xmx128m App.java")),
        ],
        ask: Ask::Http { port: 7010, path: "/", has: "java answers" },
        memory: word(7010, "/"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "tomcat10",
        family: "JVM",
        unit: "tomcat10.service",
        packages: &["tomcat10"],
        files: &[("/var/lib/tomcat10/webapps/ROOT/index.html", "tomcat answers\n")],
        ask: Ask::Http { port: 8080, path: "/", has: "tomcat answers" },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "yaws",
        family: "Erlang",
        unit: "yaws.service",
        packages: &["yaws"],
        setup: "grep -rl 8080 /etc/yaws | xargs sed -i 's/8080/7011/g'",
        ask: Ask::Talk { port: 7011, turns: &[(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n", b"Yaws")] },
        expected: Expected::Refused("systemd does not know its main process"),
        ..Daemon::DEFAULT
    },
];
