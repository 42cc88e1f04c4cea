# Runs in the root, once, after its packages are installed.
set -eu
echo tutorial > /etc/hostname
systemctl mask console-getty.service getty@tty1.service apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer fstrim.timer man-db.timer systemd-tmpfiles-clean.timer systemd-pstore.service e2scrub_all.timer
# The reader installs and enables it.
systemctl disable radicale.service
