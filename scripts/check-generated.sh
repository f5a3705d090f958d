#!/usr/bin/env bash
# Runs `go generate ./...` and fails if that changed any file: what is generated must be
# committed as it is generated. It compares the files with themselves, not with a
# commit, so it works in a tree with changes and in one without git.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

digest() {
	find . \( -name .git -o -name .tools -o -path ./bin \) -prune -o -type f -print0 |
		LC_ALL=C sort -z | xargs -0 sha256sum
}

before=$(digest)
go generate ./...
after=$(digest)
if [[ $before != "$after" ]]; then
	echo "check-generated: these files were not up to date. They are now; commit them:" >&2
	diff <(printf '%s\n' "$before") <(printf '%s\n' "$after") | sed -n 's/^> [0-9a-f]*  /  /p' >&2
	exit 1
fi
