# Services as Debian has them, each on a port of its own, and two applications that nobody packages.
systemctl mask --quiet console-getty.service getty@tty1.service apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer fstrim.timer e2scrub_all.timer lighttpd-maint.timer spamassassin-maintenance.timer \
    phpsessionclean.timer systemd-tmpfiles-clean.timer unbound-resolvconf.service
echo evidence > /etc/hostname
printf '127.0.0.1 localhost evidence\n::1 localhost\n' > /etc/hosts
sed -i -E 's/^(server.port *=).*/\1 8082/' /etc/lighttpd/lighttpd.conf
rm -f /etc/lighttpd/conf-enabled/99-unconfigured.conf
printf 'server.tag = "evidence"\n' > /etc/lighttpd/conf-available/50-tag.conf
printf 'server.tag = "another"\n' > /etc/lighttpd/conf-available/51-tag.conf
ln -sf ../conf-available/50-tag.conf /etc/lighttpd/conf-enabled/50-tag.conf
echo 'lighttpd answers' > /var/www/html/lighttpd.txt
rm -f /etc/unbound/unbound.conf.d/root-auto-trust-anchor-file.conf
install -d -o radicale -g radicale /var/lib/radicale/collections
for unit in node puma uwsgi; do systemctl enable --quiet "$unit.service"; done
systemctl enable --quiet radicale.service spamd.service
