#!/usr/bin/env bash
# Makes a deb and an rpm of a binary, into DIRECTORY:
#
#   scripts/package.sh VERSION ARCH BINARY DIRECTORY
#
# It runs in the root of a source tree, and needs no git. The same tree, binary and time give the same bytes.
#
#   SOURCE_DATE_EPOCH=SECONDS   the time of all files, and the date of the man pages
#   COMMANDS=PROGRAM            rotatord for this machine, built with -tags man; default: it is built
#   TOOLS=DIRECTORY             has nfpm and licenses; default: they are built from tools/release
#   LICENSES=FILE               the texts of the licences of what is linked in; default: they are collected
set -euo pipefail
export LC_ALL=C TZ=UTC
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { printf 'package: %s\n' "$*" >&2; exit 1; }
[[ $# -eq 4 && $1 =~ ^v[0-9]+\.[0-9]+\.[0-9]+ && -x $3 ]] || fail "usage: scripts/package.sh vMAJOR.MINOR.PATCH ARCH BINARY DIRECTORY"
version=$1 arch=$2 binary=$(realpath "$3") out=$(realpath -m "$4")
: "${SOURCE_DATE_EPOCH:?the time of the commit, in seconds since 1970}"
export SOURCE_DATE_EPOCH
umask 022

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [[ -z ${TOOLS:-} ]]; then
	TOOLS=$work/tools
	(cd tools/release && go build -o "$TOOLS/" github.com/goreleaser/nfpm/v2/cmd/nfpm ./licenses)
fi
if [[ -z ${COMMANDS:-} ]]; then
	COMMANDS=$work/commands
	CGO_ENABLED=0 go build -tags man -trimpath -buildvcs=false -ldflags "-X main.version=$version" -o "$COMMANDS" ./cmd/rotatord
fi

stage=$work/stage
mkdir -p "$stage/man" "$stage/examples" "$out"
if [[ -n ${LICENSES:-} ]]; then
	cp "$LICENSES" "$stage/THIRD-PARTY-LICENSES.txt"
else
	CGO_ENABLED=0 GOOS=linux GOARCH=$arch "$TOOLS/licenses" -list "$work/licenses.csv" -texts "$stage/THIRD-PARTY-LICENSES.txt" ./cmd/rotatord
fi
cp "$binary" "$stage/rotatord"
cp deploy/packages/{nfpm.yaml,rotatord.sysusers,postinstall.sh,preremove.sh,postremove.sh,INSTALLED.md} "$stage"
cp LICENSE config.example.yaml deploy/prometheus/rotatord.rules.yaml deploy/grafana/rotatord.json "$stage"
cp -r deploy/vault "$stage/examples/vault"
sed 's|/usr/local/bin/rotatord|/usr/bin/rotatord|' deploy/systemd/rotatord.service >"$stage/rotatord.service"
gzip -n -9 <CHANGELOG.md >"$stage/changelog.gz"
{
	printf 'rotatord is under the Apache License 2.0, which Debian has in /usr/share/common-licenses/Apache-2.0.\n'
	printf 'Its binary contains components under licences of their own: THIRD-PARTY-LICENSES.txt in this directory.\n'
} >"$stage/copyright"
"$COMMANDS" completion bash >"$stage/rotatord.bash"
"$COMMANDS" completion fish >"$stage/rotatord.fish"
"$COMMANDS" completion zsh >"$stage/_rotatord"
"$COMMANDS" man "$stage/man"
gzip -n -9 "$stage"/man/*.1
find "$stage" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
find "$stage/examples" -type f -exec chmod 0644 {} +

export GOARCH=$arch VERSION=$version
for packager in deb rpm; do
	(cd "$stage" && "$TOOLS/nfpm" package --config nfpm.yaml --packager "$packager" --target "$out/")
done
