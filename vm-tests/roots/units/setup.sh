# Runs in the root, once, after its packages are installed.
set -eu
echo units > /etc/hostname
mkdir -p /var/lib/counts
useradd --system --no-create-home counter
chown counter /var/lib/counts
systemctl mask console-getty.service getty@tty1.service apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer fstrim.timer systemd-tmpfiles-clean.timer systemd-pstore.service
