# Runs in the root, once, after its packages are installed.
set -eu
echo units > /etc/hostname
mkdir -p /var/lib/counts
useradd --system --no-create-home counter
chown counter /var/lib/counts
systemctl mask console-getty.service getty@tty1.service apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer fstrim.timer systemd-tmpfiles-clean.timer systemd-pstore.service
# What rules of units are about: a second interface, and programs of control groups.
# Before others listen for news of interfaces.
cat > /etc/systemd/system/rules-for-all.service <<'END'
[Unit]
DefaultDependencies=no
Before=listen-netlink.socket
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=ip link add out0 type veth peer name out1
ExecStart=ip address add 192.0.2.1/24 dev out0
ExecStart=ip link set out0 up
ExecStart=ip link set out1 up
ExecStart=sh -c 'for i in out0 out1; do until ip link show $$i | grep -q "state UP"; do sleep 0.05; done; done'
ExecStart=/usr/local/bin/pin
END
