#!/bin/sh
# After the files are in place, for the first installation and for an upgrade.
# dpkg calls it with "configure" and the old version, rpm with how many versions are installed.
set -e

case "$1" in
abort-*) exit 0 ;;
esac

# Without systemd-sysusers the unit has a dynamic user of that name.
if command -v systemd-sysusers >/dev/null 2>&1; then
	systemd-sysusers rotatord.conf
fi

config=/etc/rotatord/config.yaml
if [ -e /etc/systemd/system/rotatord.service ]; then
	echo "rotatord: /etc/systemd/system/rotatord.service, as make install writes it, hides the unit of this package. Remove it and /usr/local/bin/rotatord, then: systemctl daemon-reload && systemctl restart rotatord.service"
fi

# Not started and not enabled on a first installation: there is nothing to rotate yet.
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	if systemctl --quiet is-active rotatord.service; then
		# SIGTERM lets the rotation in progress finish. A configuration that the new version refuses must not end the old one.
		if [ ! -e "$config" ] || rotatord check --config "$config" >/dev/null 2>&1; then
			systemctl restart rotatord.service || echo "rotatord: the daemon did not start: journalctl --unit rotatord.service says why"
		else
			echo "rotatord: the new version does not accept $config. The old version is still running, from memory. Run: rotatord check, correct the file, then: systemctl restart rotatord.service"
		fi
	fi
fi
if [ ! -e "$config" ]; then
	echo "rotatord: what to do next is in /usr/share/doc/rotatord/README.md"
fi
