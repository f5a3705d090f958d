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
doc=$stage/doc
mkdir -p "$stage/man"/man{1,5} "$doc/examples"/{prometheus,grafana} "$out"
if [[ -n ${LICENSES:-} ]]; then
	cp "$LICENSES" "$doc/THIRD-PARTY-LICENSES.txt"
else
	CGO_ENABLED=0 GOOS=linux GOARCH=$arch "$TOOLS/licenses" -list "$work/licenses.csv" -texts "$doc/THIRD-PARTY-LICENSES.txt" ./cmd/rotatord
fi
cp "$binary" "$stage/rotatord"
cp deploy/packages/{nfpm.yaml,rotatord.sysusers,rotatord.lintian-overrides,postinstall.sh,preremove.sh,postremove.sh} "$stage"
cp LICENSE config.example.yaml "$stage"
cp deploy/packages/INSTALLED.md "$doc/README.md"
cp deploy/prometheus/rotatord.rules.yaml "$doc/examples/prometheus"
cp deploy/grafana/rotatord.json "$doc/examples/grafana"
cp -r deploy/vault "$doc/examples/vault"
gzip -n -9 <CHANGELOG.md >"$doc/CHANGELOG.md.gz"
sed 's|/usr/local/bin/rotatord|/usr/bin/rotatord|; /^Description=/a Documentation=man:rotatord(1) man:rotatord.yaml(5)' deploy/systemd/rotatord.service >"$stage/rotatord.service"

# What Debian and rpm call a changelog is one entry, in a format of their own each. What changed is in CHANGELOG.md.
maintainer=$(sed -n 's/^maintainer: //p' deploy/packages/nfpm.yaml)
[[ -n $maintainer ]] || fail "deploy/packages/nfpm.yaml has no maintainer"
packaged=${version#v} packaged=${packaged/-/\~}
news="Release $version. CHANGELOG.md says what changed."
printf 'rotatord (%s) unstable; urgency=medium\n\n  * %s\n\n -- %s  %s\n' "$packaged" "$news" "$maintainer" "$(date --date="@$SOURCE_DATE_EPOCH" --rfc-email)" |
	gzip -n -9 >"$stage/changelog.gz"
printf -- '- semver: %s-1\n  date: %s\n  packager: %s\n  changes:\n    - note: "%s"\n' "$packaged" "$(date --date="@$SOURCE_DATE_EPOCH" +%Y-%m-%dT00:00:00Z)" "$maintainer" "$news" >"$stage/changelog.yaml"
{
	printf 'rotatord: Copyright %s the authors of rotatord.\n' "$(date --date="@$SOURCE_DATE_EPOCH" +%Y)"
	printf 'It is under the Apache License 2.0, which Debian has in /usr/share/common-licenses/Apache-2.0.\n'
	printf 'Its binary contains components under licences of their own: THIRD-PARTY-LICENSES.txt in this directory.\n'
} >"$stage/copyright"
"$COMMANDS" completion bash >"$stage/rotatord.bash"
"$COMMANDS" completion fish >"$stage/rotatord.fish"
"$COMMANDS" completion zsh >"$stage/_rotatord"
"$COMMANDS" man "$work/man"
mv "$work/man"/*.1 "$stage/man/man1"
mv "$work/man"/*.5 "$stage/man/man5"
gzip -n -9 "$stage"/man/*/*
find "$doc" -type f -exec chmod 0644 {} +
find "$stage" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

export GOARCH=$arch VERSION=$version
# package PACKAGER MARK: makes one package, with the documents and man pages, which get the mark.
package() {
	local config=$stage/$1.yaml file
	{
		cat "$stage/nfpm.yaml"
		while read -r file; do
			printf '  - {src: %s, dst: /usr/share/%s, %sfile_info: {mode: 0644}}\n' "$file" "${file/#doc/doc\/rotatord}" "$2"
		done < <(cd "$stage" && find doc man -type f | sort)
		# nfpm would write it into the deb too, in place of changelog.gz.
		[[ $1 != rpm ]] || printf 'changelog: changelog.yaml\n'
	} >"$config"
	(cd "$stage" && "$TOOLS/nfpm" package --config "$config" --packager "$1" --target "$out/")
}
package deb ''
package rpm 'type: doc, '
