# Makes version $1 of a package with a service, and what that reads.
set -eu
tree=/srv/payload/$1
mkdir -p "$tree/DEBIAN" "$tree/usr/share/payload" "$tree/usr/lib/systemd/system"
echo "$1" > "$tree/usr/share/payload/data"
cp /srv/payload/payload.service "$tree/usr/lib/systemd/system/"
cat > "$tree/DEBIAN/control" <<EOF
Package: payload
Version: $1
Architecture: all
Maintainer: Nobody <nobody@localhost>
Description: a service for a test
EOF
dpkg-deb --build --root-owner-group "$tree" "/srv/payload/$1.deb"
