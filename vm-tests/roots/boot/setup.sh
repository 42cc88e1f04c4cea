# Runs in the root, once, after its packages are installed: in containers and on machines.
set -eu
echo boot > /etc/hostname
echo "127.0.0.1 localhost boot" > /etc/hosts
echo "PARTUUID=fa57b007-01 / ext4 defaults 0 1" > /etc/fstab
echo 5f3c9a4e1c0b4c7d9a55d1e0f7a8b6c3 > /etc/machine-id

# What a tuned server has not either, or work that a quiet boot should not meet by chance.
systemctl mask console-getty.service getty@tty1.service serial-getty@ttyS0.service apt-daily.timer \
    apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer e2scrub_reap.service \
    logrotate.timer man-db.timer systemd-tmpfiles-clean.timer systemd-pstore.service

# nginx: two workers on every machine (packaged: one per CPU).
sed -i 's/^worker_processes auto;/worker_processes 2;/' /etc/nginx/nginx.conf
# Where a slow emulated machine would otherwise give up.
mkdir -p /etc/systemd/system.conf.d
printf '[Manager]\nDefaultTimeoutStartSec=300s\n' > /etc/systemd/system.conf.d/slow.conf

install -d -o www-data -g www-data /var/lib/django-demo
cd /srv/django
runuser -u www-data -- env PYTHONDONTWRITEBYTECODE=1 DJANGO_SETTINGS_MODULE=demo.settings \
    python3 -m django migrate --verbosity 0 --pythonpath /srv/django
python3 -m compileall -q /srv/django

systemctl enable fastboot-tests-agent.service nginx.service redis-server.service django-demo.service go-demo.service
if [ -e /etc/puppet/puppetserver ]; then
    # Its status page without TLS, beside what it serves.
    printf 'webserver: {\n    access-log-config: /etc/puppet/puppetserver/request-logging.xml\n    client-auth: want\n    ssl-host: 127.0.0.1\n    ssl-port: 8140\n    host: 127.0.0.1\n    port: 8139\n}\n' \
        > /etc/puppet/puppetserver/conf.d/webserver.conf
    # Debian's default of 2 GiB, halved: so much memory the machine has not.
    sed -i 's/-Xms[0-9]*[gm]/-Xms512m/; s/-Xmx[0-9]*[gm]/-Xmx1g/' /etc/default/puppetserver
    printf '[main]\ncertname = boot\n[server]\nca_name = boot\n' >> /etc/puppet/puppet.conf
    systemctl enable puppetserver.service rabbitmq-server.service tomcat10.service node.service
fi
