# Runs in the root, once, after its packages are installed.
set -eu
echo scenario > /etc/hostname
systemctl mask console-getty.service getty@tty1.service apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer fstrim.timer systemd-tmpfiles-clean.timer systemd-pstore.service
sed -i 's/^worker_processes auto;/worker_processes 2;/' /etc/nginx/nginx.conf
sed -i '/^save /d; s/^appendonly .*/appendonly no/' /etc/redis/redis.conf
echo 'save ""' >> /etc/redis/redis.conf
systemctl enable nginx.service redis-server.service counter.service
