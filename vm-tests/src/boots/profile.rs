//! What runs on the machines of the benchmark: a light and a heavy set of services, the same in
//! containers and on machines.

use anyhow::Result;
use clap::ValueEnum;

use crate::client::Turn;
use crate::demo;
use crate::roots::{Language, Recipe, RootFile, compiled};

/// A set of services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// nginx, redis, prefork Python (Django under gunicorn), Go.
    Light,
    /// These, and puppetserver (a JVM with a long start), Tomcat, RabbitMQ, Node.js.
    Heavy,
}

/// A service, and what a client asks it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Served {
    pub(super) unit: &'static str,
    pub(super) port: u16,
    pub(super) turn: Turn,
}

const GET: &[u8] = b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n";
const SERVED: [Served; 8] = [
    Served { unit: "nginx.service", port: 80, turn: (GET, b"nginx answers") },
    Served { unit: "redis-server.service", port: 6379, turn: (b"PING\r\n", b"+PONG") },
    Served { unit: "django-demo.service", port: 8000, turn: (GET, b"Django answers") },
    Served {
        unit: "go-demo.service",
        port: 8081,
        turn: (b"GET /state HTTP/1.0\r\nHost: localhost\r\n\r\n", b"\"count\""),
    },
    Served {
        unit: "puppetserver.service",
        port: 8139,
        turn: (b"GET /status/v1/simple HTTP/1.0\r\nHost: localhost\r\n\r\n", b"running"),
    },
    Served {
        unit: "tomcat10.service",
        port: 8080,
        turn: (b"GET /counter.jsp HTTP/1.0\r\nHost: localhost\r\n\r\n", b"\"count\""),
    },
    Served { unit: "rabbitmq-server.service", port: 5672, turn: (b"AMQP\0\0\x09\x01", b"AMQPLAIN") },
    Served { unit: "node.service", port: 7009, turn: (GET, b"node answers") },
];
const LIGHT: usize = 4;

impl Profile {
    /// As on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Profile::Light => "light",
            Profile::Heavy => "heavy",
        }
    }

    pub(super) fn served(self) -> &'static [Served] {
        match self {
            Profile::Light => &SERVED[..LIGHT],
            Profile::Heavy => &SERVED,
        }
    }

    /// Names of all units.
    pub(super) fn units(self) -> Vec<&'static str> {
        self.served().iter().map(|served| served.unit).collect()
    }

    /// The root, with a kernel and the runner's agent for machines.
    ///
    /// # Errors
    /// A program of ours does not compile.
    pub(super) fn recipe(self) -> Result<Recipe> {
        let mut packages = vec![
            "systemd",
            "systemd-sysv",
            "dbus",
            "procps",
            "iproute2",
            "kmod",
            "udev",
            "e2fsprogs",
            "initramfs-tools",
            "linux-image-cloud-amd64",
            "nginx",
            "redis-server",
            "python3-django",
            "gunicorn",
        ];
        let mut files = demo::recipe()?.files;
        let program = |source: &str| compiled(Language::StaticC, source);
        files.extend([
            RootFile::program(
                "/usr/local/bin/fastboot-tests-agent",
                program(include_str!("../../roots/machine/agent.c"))?,
            ),
            RootFile::text(
                "/etc/systemd/system/fastboot-tests-agent.service",
                include_str!("../../roots/machine/fastboot-tests-agent.service"),
            ),
            RootFile::text(
                "/etc/systemd/system/fastboot-tests-agent.service.d/container.conf",
                "[Unit]\nConditionVirtualization=!container\n",
            ),
            RootFile::program(
                "/usr/local/bin/first-answers",
                program(include_str!("../../roots/boot/first-answers.c"))?,
            ),
        ]);
        if self == Profile::Heavy {
            packages.extend([
                "tomcat10",
                "default-jre-headless",
                "puppetserver",
                "rabbitmq-server",
                "nodejs",
            ]);
            files.extend([
                RootFile::text("/srv/apps/server.js", include_str!("../../roots/daemons/app.node.js")),
                RootFile::text(
                    "/etc/systemd/system/node.service",
                    include_str!("../../roots/boot/node.service"),
                ),
            ]);
        } else {
            files.retain(|file| !file.path.contains("tomcat"));
        }
        Ok(Recipe {
            name: match self {
                Profile::Light => "boot-light",
                Profile::Heavy => "boot-heavy",
            },
            suite: "trixie",
            packages,
            from_sid: Vec::new(),
            files,
            setup: include_str!("../../roots/boot/setup.sh"),
        })
    }
}
