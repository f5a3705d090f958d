#!/usr/bin/env bash
# Compares micro-benchmarks of a commit with those of the working tree, and prints what benchstat says:
#
#   scripts/bench-compare.sh BASE [DIRECTORY...]
#
# Without directories: those that have benchmarks of what a rotation, a record or a page costs. The environment may have
#
#   BENCH  a regular expression of benchmarks; all of them
#   COUNT  how often each is run; 6, the fewest with which benchstat can be certain
#   TIME   how long each run takes; 300ms
#
# Both sides are built first, and then run in turn, so that other work on the machine strikes both.
# The commit is checked out beside, in a temporary directory: the working tree is not touched. A benchmark that only one
# side has is printed without a comparison.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
say() { printf 'bench-compare: %s\n' "$*" >&2; }

[[ $# -gt 0 && -n $1 ]] || { say "which commit is it compared with? For example: make bench-compare BASE=HEAD~1"; exit 2; }
base=$(git rev-parse --verify --quiet "$1^{commit}") || { say "$1 is not a commit of this repository"; exit 2; }
shift
directories=("$@")
[[ $# -gt 0 ]] || directories=(bench cmd/rotatord internal/app internal/audit internal/event internal/httpapi internal/packed)
make --no-print-directory .tools/bin/benchstat >&2

work=$(mktemp -d)
trap 'git worktree remove --force "$work/base" 2>/dev/null || true; rm -rf "$work"' EXIT
git worktree add --quiet --detach "$work/base" "$base"
declare -A tree=([base]=$work/base [now]=$PWD)

programs=()
for directory in "${directories[@]}"; do
	for side in base now; do
		[[ -d ${tree[$side]}/$directory ]] || { say "$side does not have $directory"; continue; }
		name=$side-${directory//\//-}
		(cd "${tree[$side]}/$directory" && go test -c -o "$work/$name.test" .)
		[[ -x $work/$name.test ]] && programs+=("$side $directory $name") # without tests nothing is built
	done
done
: >"$work/base.txt" >"$work/now.txt"
for ((round = 1; round <= ${COUNT:-6}; round++)); do
	say "run $round of ${COUNT:-6}"
	for program in "${programs[@]}"; do
		read -r side directory name <<<"$program"
		(cd "${tree[$side]}/$directory" && "$work/$name.test" -test.run '^$' -test.bench "${BENCH:-.}" -test.benchtime "${TIME:-300ms}" -test.benchmem) >>"$work/$side.txt"
	done
done
grep -q ^Benchmark "$work/base.txt" "$work/now.txt" || { say "no benchmark of ${directories[*]} matches ${BENCH:-.}"; exit 2; }
cp "$work/base.txt" "$work/now.txt" .tools/
cd .tools && bin/benchstat base.txt now.txt
