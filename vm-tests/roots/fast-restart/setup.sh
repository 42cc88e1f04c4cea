# Runs in the root, once, after its packages are installed.
set -eu
echo fast-restart > /etc/hostname
echo plain > /etc/ledger.conf
systemctl mask console-getty.service getty@tty1.service apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer fstrim.timer systemd-tmpfiles-clean.timer systemd-pstore.service
sed -i '/^save /d; s/^appendonly .*/appendonly yes/' /etc/redis/redis.conf
echo 'save ""' >> /etc/redis/redis.conf
# In a user namespace its threads are numbered by counter, and one number may be lost in any boot (README, Limits).
mkdir -p /etc/systemd/system/redis-server.service.d
printf '[Service]\nPrivateUsers=no\n' > /etc/systemd/system/redis-server.service.d/numbers.conf
systemctl enable redis-server.service ledger.service
