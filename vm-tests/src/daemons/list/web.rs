//! Web servers and proxies. nginx is behind all of the proxies.

use crate::daemons::daemon::{Ask, Daemon, Expected, GoesOn};

/// For those that are asked through nginx or ask it themselves: with --only it has to be there too.
const WITH_NGINX: &str = "systemctl unmask --quiet nginx.service; systemctl enable --quiet nginx.service";
const HTTP_PROXY: &str = "http://127.0.0.1:80/";

pub(super) const DAEMONS: &[Daemon] = &[
    Daemon {
        name: "nginx",
        family: "web",
        unit: "nginx.service",
        packages: &["nginx"],
        files: &[("/var/www/html/index.html", include_str!("../../../roots/common/index.html"))],
        setup: "sed -i 's/^worker_processes auto;/worker_processes 2;/' /etc/nginx/nginx.conf",
        ask: Ask::Http { port: 80, path: "/", has: "nginx answers" },
        expected: Expected::Refused("an established TCP connection"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "apache2",
        family: "web",
        unit: "apache2.service",
        packages: &["apache2"],
        files: &[("/var/www/apache/index.html", "apache answers\n")],
        setup: "
            sed -i 's/^Listen 80$/Listen 8081/' /etc/apache2/ports.conf
            sed -i 's/:80>/:8081>/; s!/var/www/html!/var/www/apache!' /etc/apache2/sites-available/000-default.conf
            echo 'ServerName localhost' > /etc/apache2/conf-available/name.conf
            a2enconf --quiet name",
        ask: Ask::Http { port: 8081, path: "/", has: "apache answers" },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "lighttpd",
        family: "web",
        unit: "lighttpd.service",
        packages: &["lighttpd"],
        files: &[("/var/www/html/lighttpd.txt", "lighttpd answers\n")],
        setup: "sed -i -E 's/^(server.port *=).*/\\1 8082/' /etc/lighttpd/lighttpd.conf",
        ask: Ask::Http { port: 8082, path: "/lighttpd.txt", has: "lighttpd answers" },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "caddy",
        family: "web, Go",
        unit: "caddy.service",
        packages: &["caddy"],
        files: &[("/etc/caddy/Caddyfile", ":8083\nrespond \"caddy answers\"\n")],
        ask: Ask::Http { port: 8083, path: "/", has: "caddy answers" },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "php-fpm",
        family: "web, PHP",
        unit: "php8.4-fpm.service",
        packages: &["php8.4-fpm"],
        files: &[
            ("/var/www/html/answer.php", "<?php echo 'PHP ', 'answers';\n"),
            (
                "/etc/nginx/conf.d/php.conf",
                "server {\n listen 8085;\n root /var/www/html;\n location ~ \\.php$ {\n  include fastcgi.conf;\n  \
                 fastcgi_pass unix:/run/php/php8.4-fpm.sock;\n }\n}\n",
            ),
        ],
        setup: WITH_NGINX,
        ask: Ask::Http { port: 8085, path: "/answer.php", has: "PHP answers" },
        goes_on: &[GoesOn { has: &[" sigactions: "], why: "a worker sets PHP's handlers at its first request" }],
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "haproxy",
        family: "proxy",
        unit: "haproxy.service",
        packages: &["haproxy"],
        files: &[(
            "/etc/haproxy/haproxy.cfg",
            "global\n stats socket /run/haproxy/admin.sock mode 660 level admin\n user haproxy\n group haproxy\n\
             defaults\n mode http\n timeout connect 5s\n timeout client 50s\n timeout server 50s\n\
             frontend stats\n bind 127.0.0.1:8084\n stats enable\n stats uri /stats\n",
        )],
        ask: Ask::Http { port: 8084, path: "/stats", has: "Statistics Report" },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "squid",
        family: "proxy",
        unit: "squid.service",
        packages: &["squid"],
        files: &[
            (
                "/etc/squid/squid.conf",
                "http_port 3128\nhttp_access allow localhost\nhttp_access deny all\ncoredump_dir /var/spool/squid\n\
                 visible_hostname squid.test\nshutdown_lifetime 1 second\n",
            ),
        ],
        setup: WITH_NGINX,
        ask: Ask::Http { port: 3128, path: HTTP_PROXY, has: "nginx answers" },
        expected: Expected::Refused("an established TCP connection"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "privoxy",
        family: "proxy",
        unit: "privoxy.service",
        packages: &["privoxy"],
        ask: Ask::Http { port: 8118, path: "http://p.p/", has: "Privoxy" },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "tinyproxy",
        family: "proxy",
        unit: "tinyproxy.service",
        packages: &["tinyproxy"],
        setup: WITH_NGINX,
        ask: Ask::Http { port: 8888, path: HTTP_PROXY, has: "nginx answers" },
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "varnish",
        family: "proxy",
        unit: "varnish.service",
        packages: &["varnish"],
        files: &[(
            "/etc/varnish/default.vcl",
            "vcl 4.1;\nbackend default none;\nsub vcl_recv { return (synth(200, \"varnish answers\")); }\n",
        )],
        ask: Ask::Http { port: 6081, path: "/", has: "varnish answers" },
        expected: Expected::Refused("writes to /var/lib"),
        ..Daemon::DEFAULT
    },
    Daemon {
        name: "stunnel",
        family: "proxy",
        unit: "stunnel@both.service",
        packages: &["stunnel4", "openssl"],
        files: &[(
            "/etc/stunnel/both.conf",
            "foreground = yes\n[client]\nclient = yes\naccept = 127.0.0.1:8086\nconnect = 127.0.0.1:8087\n\
             [server]\naccept = 127.0.0.1:8087\nconnect = 127.0.0.1:80\ncert = /etc/stunnel/both.pem\n",
        )],
        setup: "
            openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=both.test \
                -keyout /etc/stunnel/key -out /etc/stunnel/cert 2>/dev/null
            cat /etc/stunnel/key /etc/stunnel/cert > /etc/stunnel/both.pem
            chmod 600 /etc/stunnel/both.pem
            systemctl unmask --quiet nginx.service; systemctl enable --quiet nginx.service",
        ask: Ask::Http { port: 8086, path: "/", has: "nginx answers" },
        ..Daemon::DEFAULT
    },
];
