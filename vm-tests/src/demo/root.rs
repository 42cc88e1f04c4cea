//! The root of the demo: Debian 13 with the five services as Debian ships them.
//!
//! What differs from the packages, and why:
//!
//! - nginx: two workers instead of one per CPU (tables compare across machines); one more server
//!   that shows nginx's own counters (state that can be proved); a page of ours.
//! - redis: `save ""` and no append-only file, so that a key can only come from memory.
//! - tomcat10: one more JSP in the packaged application. Unit and configuration as packaged.
//! - Django, Go: not services of Debian; the unit of Django is the example in gunicorn's
//!   documentation.
//! - Masked: gettys and timers, which would start work by chance.

use anyhow::{Context as _, Result};

use crate::roots::{Language, Recipe, RootFile, compiled};
use crate::service::{Kind, Service};

/// All services, in the order of the tables.
pub const SERVICES: [Service; 5] = [
    Service { unit: "nginx.service", comes_back: false, kind: Kind::Nginx },
    Service { unit: "redis-server.service", comes_back: true, kind: Kind::Redis },
    Service { unit: "tomcat10.service", comes_back: true, kind: TOMCAT },
    Service { unit: "django-demo.service", comes_back: true, kind: Kind::Django },
    Service { unit: "go-demo.service", comes_back: true, kind: GO },
];

const TOMCAT: Kind = Kind::Counter { port: 8080, show: "/counter.jsp", bump: "/counter.jsp?", to: 4711 };
const GO: Kind = Kind::Counter { port: 8081, show: "/state", bump: "/bump?", to: 815 };

/// Directory of the Django project.
const DJANGO: &str = "/srv/django/demo";

macro_rules! source {
    ($name:literal) => {
        include_str!(concat!("../../roots/demo/", $name))
    };
}

/// What the root is made of. Compiles the Go server if that has not been done yet.
///
/// # Errors
/// The Go server does not compile.
pub fn recipe() -> Result<Recipe> {
    let go = compiled(Language::Go, source!("go/main.go")).context("compiling the Go server")?;
    let django = |name: &str, content: &'static str| RootFile {
        path: format!("{DJANGO}/{name}").into(),
        mode: 0o644,
        content: content.as_bytes().into(),
    };
    Ok(Recipe {
        name: "demo",
        suite: "trixie",
        packages: vec![
            "systemd",
            "systemd-sysv",
            "dbus",
            "procps",
            "iproute2",
            "nginx",
            "redis-server",
            "tomcat10",
            "default-jre-headless",
            "python3-django",
            "gunicorn",
        ],
        from_sid: Vec::new(),
        files: vec![
            django("__init__.py", ""),
            django("settings.py", source!("django/settings.py")),
            django("urls.py", source!("django/urls.py")),
            django("views.py", source!("django/views.py")),
            django("wsgi.py", source!("django/wsgi.py")),
            django("templates/home.html", source!("django/home.html")),
            RootFile::text("/etc/systemd/system/django-demo.service", source!("django/django-demo.service")),
            RootFile::program("/usr/local/bin/go-demo", go),
            RootFile::text("/etc/systemd/system/go-demo.service", source!("go/go-demo.service")),
            RootFile::text("/var/lib/tomcat10/webapps/ROOT/counter.jsp", source!("counter.jsp")),
            RootFile::text(
                "/etc/nginx/conf.d/status.conf",
                include_str!("../../roots/common/nginx-status.conf"),
            ),
            RootFile::text("/var/www/html/index.html", include_str!("../../roots/common/index.html")),
        ],
        setup: source!("setup.sh"),
    })
}
