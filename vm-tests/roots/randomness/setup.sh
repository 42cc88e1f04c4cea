# Runs in the root, once, after its packages are installed.
set -eu
echo randomness > /etc/hostname
cd /usr/local/lib/draw && javac Draw.java
systemctl mask console-getty.service getty@tty1.service apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer fstrim.timer systemd-tmpfiles-clean.timer systemd-pstore.service
