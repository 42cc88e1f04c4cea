# Runs in the root, once, after its packages are installed.
set -eu
echo bus > /etc/hostname
useradd --system --no-create-home busclient
# It does not want to run in containers, where it finds no modem but works.
mkdir -p /etc/systemd/system/ModemManager.service.d
printf '[Unit]\nConditionVirtualization=\n' > /etc/systemd/system/ModemManager.service.d/container.conf
systemctl mask console-getty.service getty@tty1.service apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer fstrim.timer systemd-tmpfiles-clean.timer systemd-pstore.service
for unit in avahi-daemon accounts-daemon udisks2 upower ModemManager packagekit polkit; do
    mkdir -p "/etc/systemd/system/multi-user.target.wants"
    ln -sf "/usr/lib/systemd/system/$unit.service" "/etc/systemd/system/multi-user.target.wants/$unit.service"
done
# It has its database of transactions open for writing. The image is good for as long as nobody has written to that.
mkdir -p /etc/systemd/system/packagekit.service.d
printf '[X-Fastboot]\nAllowState=yes\nDependsOn=/var/lib/PackageKit/transactions.db\n' \
    > /etc/systemd/system/packagekit.service.d/state.conf
