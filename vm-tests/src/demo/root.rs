//! The root of the demo: Debian 13 with the five services as Debian ships them.
//!
//! What differs from the packages, and why:
//!
//! - nginx: two workers instead of one per CPU (tables compare across machines); one more server that shows nginx's own
//!   counters (state that can be proved); a page of ours.
//! - redis: `save ""` and no append-only file, so that a key can only come from memory.
//! - tomcat10: one more JSP in the packaged application. Unit and configuration as packaged.
//! - Django, Go: not services of Debian; the unit of Django is the example in gunicorn's documentation.
//! - Masked: gettys and timers, which would start work by chance.

use anyhow::{Context as _, Result};

use crate::roots::{Language, Recipe, RootFile, compiled};

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
            RootFile::text("/etc/nginx/conf.d/status.conf", source!("nginx-status.conf")),
            RootFile::text("/var/www/html/index.html", source!("index.html")),
            RootFile::program("/usr/local/bin/demo-warm-up", source!("warm-up").as_bytes()),
        ],
        setup: source!("setup.sh"),
    })
}

/// Drop-in that tells fastboot of the file that nginx read and closed; installed together with fastboot.
pub const NGINX_EVIDENCE: (&str, &str) =
    ("/etc/systemd/system/nginx.service.d/fastboot.conf", source!("nginx-evidence.conf"));

/// What `fastboot snapshot` is told to run when the services are ready.
pub const WARM_UP: &str = "/usr/local/bin/demo-warm-up";
/// The file by which [`WARM_UP`] asks for it; removed when done.
pub const WARM_UP_WANTED: &str = "/var/lib/demo/warm-up.wanted";
