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
for pending in /var/lib/private/rotatord/pending /var/lib/rotatord/pending; do
	if [ -d "$pending" ] && [ -n "$(find "$pending" -type f 2>/dev/null | head -n 1)" ]; then
		echo "rotatord: WARNING: $pending has client secrets that were not delivered. No other copy exists. Install rotatord again, or read them with: rotatord recover (of a copy of the binary)"
		break
	fi
done
