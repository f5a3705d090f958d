#!/usr/bin/env bash
# Builds what a release consists of, into DIRECTORY (default dist/VERSION):
#
#   scripts/release.sh VERSION [DIRECTORY]
#
#   rotatord_VERSION_linux_ARCH.tar.gz      the static binary, license, README, deploy/ and the example configuration
#   rotatord_VERSION_linux_ARCH.cdx.json    the SBOM (CycloneDX) of that binary
#   rotatord-VERSION.tgz                    the Helm chart; its version and that of its application are VERSION
#   SHA256SUMS                              checksums of all of them
#
# It builds from the commit and not from the work tree, twice: in two directories with names of
# different length, the second time with an empty build cache. It fails if the two binaries differ.
#
#   ARCHS="amd64 arm64"   what to build
#   SNAPSHOT=1            also from a commit without the tag, or with changes that are not committed
#   QUICK=1               the second build may use the build cache, and there is no SBOM (for tests)
#   SBOM=PROGRAM          cyclonedx-gomod; default: built from tools/release
set -euo pipefail
export LC_ALL=C
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { printf 'release: %s\n' "$*" >&2; exit 1; }

[[ $# -ge 1 && $1 =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]] || fail "usage: scripts/release.sh vMAJOR.MINOR.PATCH [DIRECTORY]"
version=$1
out=$(realpath -m "${2:-dist/$version}")
revision=$(git rev-parse HEAD) || fail "this is not a git repository: a release is built from a commit"
if [[ -z ${SNAPSHOT:-} ]]; then
	[[ -z $(git status --porcelain) ]] || fail "there are changes that are not committed"
	[[ $(git rev-parse -q --verify "refs/tags/$version^{commit}" || true) == "$revision" ]] || fail "HEAD has no tag $version: git tag -s $version"
	grep -qF "## ${version#v}" CHANGELOG.md || fail "CHANGELOG.md has no section \"## ${version#v}\""
fi
[[ ! -e $out ]] || fail "$out exists: remove it first"

work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
date=@$(git log -1 --format=%ct)
ldflags="-s -w -X main.version=$version -X main.revision=$revision"

# build SOURCE ARCH BINARY
build() {
	# -buildvcs=false: an archive has no git, and the revision is in -ldflags.
	(cd "$1" && CGO_ENABLED=0 GOOS=linux GOARCH=$2 GOFLAGS='' go build -trimpath -buildvcs=false -ldflags "$ldflags" -o "$3" ./cmd/rotatord)
}

first=$work/a
second=$work/another-directory-with-a-longer-name/b
mkdir -p "$first" "$second" "$work/stage"
for directory in "$first" "$second"; do
	git archive --format=tar HEAD | tar -x -C "$directory"
done

if [[ -z ${QUICK:-} && -z ${SBOM:-} ]]; then
	SBOM=$work/cyclonedx-gomod
	(cd tools/release && go build -trimpath -o "$SBOM" github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod)
fi

# pack NAME FILE: NAME below the stage, with the time of the commit and nothing of this machine.
pack() {
	tar --create --directory "$work/stage" --sort=name --mtime="$date" --owner=0 --group=0 --numeric-owner \
		--mode='u+rw,go=rX' --format=ustar "$1" | gzip -n -9 >"$2"
}

mkdir -p "$out"
chart=deploy/helm/rotatord
sed -i "s/^version: .*/version: ${version#v}/; s/^appVersion: .*/appVersion: $version/" "$first/$chart/Chart.yaml"
[[ $(grep -cx "version: ${version#v}\|appVersion: $version" "$first/$chart/Chart.yaml") == 2 ]] || fail "$chart/Chart.yaml has no version to replace"
cp -r "$first/$chart" "$work/stage/rotatord"
rm "$work/stage/rotatord/.helmignore" # Helm leaves out what it names
pack rotatord "$out/rotatord-${version#v}.tgz"

for arch in ${ARCHS:-amd64 arm64}; do
	name=rotatord_${version}_linux_$arch
	stage=$work/stage/$name
	mkdir -p "$stage"
	echo "release: building $name twice"
	build "$first" "$arch" "$stage/rotatord"
	if [[ -n ${QUICK:-} ]]; then
		build "$second" "$arch" "$work/again"
	else
		GOCACHE=$work/cache build "$second" "$arch" "$work/again"
	fi
	cmp "$stage/rotatord" "$work/again" || fail "two builds of $name differ: the build is not reproducible"

	cp -r "$first"/{LICENSE,README.md,CHANGELOG.md,config.example.yaml,deploy,docs} "$stage"
	pack "$name" "$out/$name.tar.gz"
	if [[ -z ${QUICK:-} ]]; then
		"$SBOM" bin -json -notimestamp -noserial -std -version "$version" -output "$out/$name.cdx.json" "$stage/rotatord"
	fi
done
(cd "$out" && sha256sum -- * >SHA256SUMS)
cat "$out/SHA256SUMS"
echo "release: in $out. Not signed: sign SHA256SUMS with the key of the releaser (docs/release.md)."
