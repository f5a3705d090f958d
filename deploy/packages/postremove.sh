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
	for state in /var/lib/private/rotatord /var/lib/rotatord; do
		[ -d "$state" ] || continue
		echo "rotatord: $state (the ledger and all that belongs to it) and what you put into /etc/rotatord are kept."
		if [ -n "$(find "$state/pending" -type f 2>/dev/null | head -n 1)" ]; then
			echo "rotatord: do not remove them: there are client secrets in $state/pending that were not delivered."
		else
			echo "rotatord: to remove them for good: rm -rf /var/lib/rotatord /var/lib/private/rotatord /etc/rotatord"
		fi
		break
	done
	;;
esac
