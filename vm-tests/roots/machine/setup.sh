# Runs in the root, once, after its packages are installed.
set -eu
echo machine > /etc/hostname
echo "PARTUUID=fa57b007-01 / ext4 defaults 0 1" > /etc/fstab
systemctl mask getty@tty1.service serial-getty@ttyS0.service apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer fstrim.timer e2scrub_all.timer e2scrub_reap.service ndctl-monitor.service cxl-monitor.service \
    systemd-tmpfiles-clean.timer \
    systemd-pstore.service
# nginx: two workers on every machine (packaged: one per CPU).
sed -i 's/^worker_processes auto;/worker_processes 2;/' /etc/nginx/nginx.conf
# redis: nothing on disk, so that a key can only come from memory.
sed -i '/^save /d; s/^appendonly .*/appendonly no/' /etc/redis/redis.conf
echo 'save ""' >> /etc/redis/redis.conf
# AppArmor is on, as Debian has it; its many profiles for other programs cost an emulated machine a minute.
find /etc/apparmor.d -maxdepth 1 -type f -delete
# Where a slow emulated machine would otherwise be given up.
mkdir -p /etc/systemd/system.conf.d
printf '[Manager]\nDefaultTimeoutStartSec=180s\n' > /etc/systemd/system.conf.d/slow.conf
# A machine id of its own, as an installed system has.
echo 5f3c9a4e1c0b4c7d9a55d1e0f7a8b6c2 > /etc/machine-id
systemctl enable fastboot-tests-agent.service nginx.service redis-server.service clockwork.service counter.service
