# Runs in the root, once, after its packages are installed.
set -eu
echo demo > /etc/hostname

# Not wanted in a container, or work that a quiet boot should not meet by chance.
systemctl mask console-getty.service getty@tty1.service apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer fstrim.timer systemd-tmpfiles-clean.timer systemd-pstore.service

# nginx: two workers on every machine (packaged: one per CPU), so that the tables compare.
sed -i 's/^worker_processes auto;/worker_processes 2;/' /etc/nginx/nginx.conf

# redis: nothing on disk, so that only its memory can hold the key that proves the restore.
sed -i '/^save /d; s/^appendonly .*/appendonly no/' /etc/redis/redis.conf
echo 'save ""' >> /etc/redis/redis.conf

install -d -o www-data -g www-data /var/lib/django-demo
cd /srv/django
runuser -u www-data -- env PYTHONDONTWRITEBYTECODE=1 DJANGO_SETTINGS_MODULE=demo.settings \
    python3 -m django migrate --verbosity 0 --pythonpath /srv/django
python3 -m compileall -q /srv/django

systemctl enable nginx.service redis-server.service tomcat10.service django-demo.service go-demo.service
