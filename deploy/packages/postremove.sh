#!/bin/sh
# After the files are gone. dpkg calls it with "remove", "purge" or "upgrade", rpm with how many versions are left.
# The state is never removed, by a purge neither: it may hold the only copy of a client secret, and without the
# ledger a new daemon does not know what was rotated.
set -e

if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
fi
case "$1" in
remove | purge | 0)
	if [ -d /var/lib/private/rotatord ] || [ -d /var/lib/rotatord ]; then
		echo "rotatord: /var/lib/rotatord (ledger, undelivered secrets, audit log) and what you put into /etc/rotatord are kept. To remove them for good: rm -rf /var/lib/rotatord /var/lib/private/rotatord /etc/rotatord"
	fi
	;;
esac
