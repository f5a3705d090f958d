#!/usr/bin/env bash
# Installs the programs that tests call, where they are missing:
#
#   scripts/install-tools.sh [image] [tpm]
#
#   promtool         from Debian's package prometheus, unpacked into .tools/bin. The package
#   prometheus       is not installed: that would start a Prometheus server on this machine.
#   prometheus-alertmanager  the same. Its template of notifications goes to where the program looks for it, which needs root.
#   systemd-analyze  from the package systemd, which needs root.
#   mkfs.ext4        from the package e2fsprogs, which needs root.
#   rpm, mandoc      from the packages of the same name, which needs root.
#   chromium         the same. The tests of the status page look at it in this browser.
#   lintian, rpmlint the same. They look at the packages.
#   zsh, fish        the same. The completions are loaded into each shell.
#   axe.min.js       from the npm package axe-core, unpacked into .tools/axe, where there is npm. It finds what makes a page
#                    hard to use with a screen reader or a keyboard.
#
# With the argument image, for `make image-e2e`: podman with crun, and qemu-aarch64-static. With tpm, for `make tpm`: swtpm, and
# age-plugin-tpm, built from source into .tools/bin.
#
# It says what it could not do, and still ends with 0: a test whose program is missing
# is skipped, or fails if ROTATORD_REQUIRE_TOOLS=1. Running it again changes nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=$PWD/.tools/bin
PATH=$bin:$PATH

say() { printf 'install-tools: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

# updated says whether the package lists were fetched in this run.
updated=
update_once() {
	[[ -n $updated ]] && return 1
	updated=yes
	if [[ $(id -u) -ne 0 ]]; then
		say "the package lists may be old, and only root can update them (apt-get update)"
		return 1
	fi
	say "updating the package lists"
	apt-get update -qq >&2
}

# install_prometheus unpacks the server and promtool, which come in one package.
install_prometheus() {
	local work program
	work=$(mktemp -d)
	# shellcheck disable=SC2064  # the directory of now
	trap "rm -rf '$work'" RETURN
	chmod 755 "$work" # apt downloads as a user of its own
	fetch_prometheus() { (cd "$work" && apt-get download -qq prometheus >&2); }
	fetch_prometheus || { update_once && fetch_prometheus; } || return 1
	dpkg-deb --extract "$work"/prometheus_*.deb "$work/root" || return 1
	mkdir -p "$bin"
	for program in promtool prometheus; do
		install -m 0755 "$work/root/usr/bin/$program" "$bin/$program" || return 1
	done
}

# install_alertmanager unpacks the server. Debian's reads its template from a fixed path, and does not start without it.
install_alertmanager() {
	local work
	work=$(mktemp -d)
	# shellcheck disable=SC2064  # the directory of now
	trap "rm -rf '$work'" RETURN
	chmod 755 "$work" # apt downloads as a user of its own
	fetch_alertmanager() { (cd "$work" && apt-get download -qq prometheus-alertmanager >&2); }
	fetch_alertmanager || { update_once && fetch_alertmanager; } || return 1
	dpkg-deb --extract "$work"/prometheus-alertmanager_*.deb "$work/root" || return 1
	mkdir -p "$bin"
	local templates=/usr/share/prometheus/alertmanager
	[[ -e $templates/default.tmpl ]] || install -D -m 0644 -t "$templates" "$work/root$templates"/*.tmpl || return 1
	install -m 0755 "$work/root/usr/bin/prometheus-alertmanager" "$bin/prometheus-alertmanager"
}

install_package() {
	if [[ $(id -u) -ne 0 ]]; then
		say "installing packages needs root"
		return 1
	fi
	local get=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@")
	"${get[@]}" >&2 || { update_once && "${get[@]}" >&2; }
}

install_systemd() { install_package systemd; }
install_e2fsprogs() { install_package e2fsprogs; }
install_rpm() { install_package rpm; }
install_mandoc() { install_package mandoc; }
install_chromium() { install_package chromium; }
install_lintian() { install_package lintian; }
install_rpmlint() { install_package rpmlint; }
install_zsh() { install_package zsh; }
install_fish() { install_package fish; }
install_podman() { install_package podman crun netavark uidmap slirp4netns; }
install_qemu() { install_package qemu-user-static; }
install_swtpm() { install_package swtpm swtpm-tools; }
# Static, as the sandbox of the unit wants it.
install_age_plugin_tpm() { CGO_ENABLED=0 GOFLAGS='' GOBIN=$bin go install github.com/foxboron/age-plugin-tpm/cmd/age-plugin-tpm@v1.0.0 >&2; }

# want PROGRAM FUNCTION: how to get it by hand
want() {
	local program=$1 install=$2 hint=$3
	have "$program" && return
	if ! have apt-get || ! have dpkg-deb; then
		say "$program is missing, and this system has no apt-get: $hint"
	elif "$install" && have "$program"; then
		say "installed $program"
	else
		say "$program is missing and could not be installed: $hint"
	fi
}

# axe-core by its version and the checksum of its archive.
axe=axe-core@4.14.1
axe_sum=1477dafa598d8d065f273d6af302aa203c02e83131707b7fa648cd41bd3d6b734f8c22a0dab86ee6a6f64b8afbe804b214d36db85a2826965edfb3a0b9d546b5

# install_axe unpacks the one file that a test loads into the browser. npm runs nothing of the package.
install_axe() {
	local work
	work=$(mktemp -d)
	# shellcheck disable=SC2064  # the directory of now
	trap "rm -rf '$work'" RETURN
	(cd "$work" && npm pack --silent --ignore-scripts "$axe" >&2) || return 1
	echo "$axe_sum  $work/${axe/@/-}.tgz" | sha512sum --check --quiet >&2 || return 1
	mkdir -p "$PWD/.tools/axe"
	tar -xzf "$work/${axe/@/-}.tgz" -C "$PWD/.tools/axe" --strip-components=1 package/axe.min.js package/LICENSE package/package.json
}

want_axe() {
	local file=$PWD/.tools/axe/package.json
	[[ -e $file ]] && grep -q "\"version\": \"${axe#*@}\"" "$file" && return
	if ! have npm; then
		say "there is no npm, so axe-core is not installed, and its test is skipped"
	elif install_axe; then
		say "installed $axe"
	else
		say "$axe could not be installed"
	fi
}

want promtool install_prometheus "put the promtool of any Prometheus 2.40 or newer into the PATH"
want prometheus install_prometheus "put the server of any Prometheus 2.40 or newer into the PATH"
want prometheus-alertmanager install_alertmanager "put an Alertmanager 0.24 or newer into the PATH under this name"
want systemd-analyze install_systemd "install systemd 252 or newer"
want mkfs.ext4 install_e2fsprogs "install e2fsprogs"
want rpm install_rpm "install rpm 4.16 or newer"
want mandoc install_mandoc "install mandoc"
want chromium install_chromium "install chromium 120 or newer"
want lintian install_lintian "install lintian 2.116 or newer"
want rpmlint install_rpmlint "install rpmlint 2.4 or newer"
want zsh install_zsh "install zsh"
want fish install_fish "install fish"
want_axe
for group in "$@"; do
	case $group in
	image)
		want podman install_podman "install podman 4.3 or newer, with crun or runc"
		want qemu-aarch64-static install_qemu "install qemu-user-static"
		;;
	tpm)
		want swtpm install_swtpm "install swtpm 0.7 or newer"
		want age-plugin-tpm install_age_plugin_tpm "put the plugin into the PATH or into .tools/bin"
		;;
	*) say "there is no group of tools $group: write image or tpm" ;;
	esac
done
