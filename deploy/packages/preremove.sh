#!/bin/sh
# Before the files go. dpkg calls it with "remove" or "upgrade", rpm with how many versions will be left.
# An upgrade does nothing here: the old process works until the new files are in place.
set -e

case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac

if [ -d /run/systemd/system ]; then
	systemctl --quiet disable --now rotatord.service || true
elif command -v systemctl >/dev/null 2>&1; then
	systemctl --quiet disable rotatord.service || true
fi
for state in /var/lib/private/rotatord /var/lib/rotatord; do
	if [ -n "$(find "$state/pending" -type f 2>/dev/null | head -n 1)" ]; then
		echo "rotatord: WARNING: $state/pending has client secrets that were not delivered, and there may be no other copy. Install rotatord again and start it: it delivers them."
		break
	fi
done
