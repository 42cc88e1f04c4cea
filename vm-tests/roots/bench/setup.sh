# Runs in the root, once, after its packages are installed.
set -eu
# An image belongs to a machine; a container without systemd would have no name.
echo 0b5a2fcb7ad74b4bb3d5d4fbc3ed2b6c > /etc/machine-id
mkdir -p /usr/local/share/bench
javac -d /usr/local/share/bench /usr/local/src/Server.java
