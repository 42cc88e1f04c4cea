# Makes version $1 of a package with a service, and what that reads.
set -eu
tree=/srv/payload/$1
mkdir -p "$tree/DEBIAN" "$tree/usr/share/payload" "$tree/usr/lib/systemd/system"
echo "$1" > "$tree/usr/share/payload/data"
cp /srv/payload/payload.service "$tree/usr/lib/systemd/system/"
# Of another time in each version, as the units of packages are.
touch --date "2026-01-0$1" "$tree/usr/lib/systemd/system/payload.service"
cat > "$tree/DEBIAN/control" <<EOF
Package: payload
Version: $1
Architecture: all
Maintainer: Nobody <nobody@localhost>
Description: a service for a test
EOF
# As debhelper makes it for packages with units.
cat > "$tree/DEBIAN/postinst" <<'EOF'
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null || true
fi
EOF
chmod 755 "$tree/DEBIAN/postinst"
dpkg-deb --build --root-owner-group "$tree" "/srv/payload/$1.deb"
