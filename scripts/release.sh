#!/usr/bin/env bash
# Builds what a release consists of, into DIRECTORY (default dist/VERSION):
#
#   scripts/release.sh VERSION [DIRECTORY]
#
#   rotatord_VERSION_linux_ARCH.tar.gz        the static binary, license, README, deploy/ and the example configuration
#   rotatord_VERSION_ARCH.deb, rotatord-VERSION-1.ARCH.rpm   packages (scripts/package.sh)
#   rotatord_VERSION_image.oci.tar            the container image, for all architectures
#   rotatord_VERSION_linux_ARCH.cdx.json      the SBOM (CycloneDX) of that binary
#   rotatord_VERSION_linux_ARCH.licenses.csv  the licences of all that is linked into it
#   rotatord-VERSION.tgz                      the Helm chart; its version and that of its application are VERSION
#   SHA256SUMS                                checksums of all of them
#
# It builds from the commit and not from the work tree, and all of it twice: in two directories with names of
# different length, the second time with an empty build cache, another time zone and another umask. It fails if
# one byte of one file differs.
#
#   ARCHS="amd64 arm64"   what to build
#   SNAPSHOT=1            also from a commit without the tag, or with changes that are not committed
#   QUICK=1               the second build may use the build cache (for tests)
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
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
ldflags="-s -w -X main.version=$version -X main.revision=$revision"
read -ra archs <<<"${ARCHS:-amd64 arm64}"

# The tools, at the versions of tools/release/go.mod. They are no part of the release, so they are built once.
tools=$work/tools
echo "release: building the tools"
(cd tools/release && GOFLAGS='' go build -trimpath -o "$tools/" github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod \
	github.com/goreleaser/nfpm/v2/cmd/nfpm ./image ./licenses)

# pack STAGE NAME FILE: NAME below STAGE, with the time of the commit and nothing of this machine.
pack() {
	tar --create --directory "$1" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
		--mode='u+rw,go=rX' --format=ustar "$2" | gzip -n -9 >"$3"
}

# build_all SOURCE OUT: a whole release from a directory of sources.
build_all() (
	source=$1 out=$2 stage=$1/.stage images=()
	mkdir -p "$out" "$stage"
	cd "$source"
	export CGO_ENABLED=0 GOFLAGS='' TOOLS=$tools COMMANDS=$stage/commands
	# -buildvcs=false: an archive has no git, and the revision is in -ldflags.
	go build -tags man -trimpath -buildvcs=false -ldflags "$ldflags" -o "$COMMANDS" ./cmd/rotatord

	chart=deploy/helm/rotatord
	mkdir -p "$stage/chart"
	cp -r $chart "$stage/chart/rotatord"
	sed -i "s/^version: .*/version: ${version#v}/; s/^appVersion: .*/appVersion: $version/" "$stage/chart/rotatord/Chart.yaml"
	[[ $(grep -cx "version: ${version#v}\|appVersion: $version" "$stage/chart/rotatord/Chart.yaml") == 2 ]] || fail "$chart/Chart.yaml has no version to replace"
	rm "$stage/chart/rotatord/.helmignore" # Helm leaves out what it names
	pack "$stage/chart" rotatord "$out/rotatord-${version#v}.tgz"

	for arch in "${archs[@]}"; do
		name=rotatord_${version}_linux_$arch
		tree=$stage/$name
		mkdir -p "$tree"
		GOOS=linux GOARCH=$arch go build -trimpath -buildvcs=false -ldflags "$ldflags" -o "$tree/rotatord" ./cmd/rotatord
		images+=("$arch=$tree/rotatord")
		GOOS=linux GOARCH=$arch "$tools/licenses" -list "$out/$name.licenses.csv" -texts "$tree/THIRD-PARTY-LICENSES.txt" ./cmd/rotatord
		"$tools/cyclonedx-gomod" bin -json -notimestamp -noserial -std -version "$version" -output "$out/$name.cdx.json" "$tree/rotatord" 2>"$stage/sbom.log" ||
			{ cat "$stage/sbom.log" >&2; fail "there is no SBOM of $name"; }
		LICENSES=$tree/THIRD-PARTY-LICENSES.txt scripts/package.sh "$version" "$arch" "$tree/rotatord" "$out"
		cp -r LICENSE README.md CHANGELOG.md config.example.yaml deploy docs "$tree"
		pack "$stage" "$name" "$out/$name.tar.gz"
	done
	"$tools/image" -version "$version" -revision "$revision" -created "$SOURCE_DATE_EPOCH" -out "$out/rotatord_${version}_image.oci.tar" "${images[@]}"
	cd "$out"
	sha256sum -- * >SHA256SUMS
)

first=$work/a second=$work/another-directory-with-a-longer-name/b
mkdir -p "$first" "$second"
for directory in "$first" "$second"; do
	git archive --format=tar HEAD | tar -x -C "$directory"
done
echo "release: the first build"
(umask 022; build_all "$first" "$work/out")
echo "release: the second build"
(
	umask 077
	export TZ=Pacific/Chatham
	[[ -n ${QUICK:-} ]] || export GOCACHE=$work/cache
	build_all "$second" "$work/again"
)
echo "release: digests of the first build"
cat "$work/out/SHA256SUMS"
echo "release: digests of the second build"
cat "$work/again/SHA256SUMS"
diff -r "$work/out" "$work/again" || fail "the two builds differ: the build is not reproducible"
chmod -R u+rwX,go=rX "$work/out"
mkdir -p "$(dirname "$out")"
mv "$work/out" "$out"
echo "release: the two builds are the same, byte for byte. In $out."
echo "release: not signed: sign SHA256SUMS with the key of the releaser (docs/release.md)."
