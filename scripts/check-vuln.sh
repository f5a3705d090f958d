#!/usr/bin/env bash
# Runs govulncheck, the program given as the first argument, on the product.
#
# It fails if a known vulnerability is reachable. Where the database of vulnerabilities cannot be
# reached it says that nothing was checked, and does not fail: a missing network is not a fault of
# the code. GOVULNDB names another database.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

report=$("$1" ./... 2>&1)
case $? in
0)
	echo "check-vuln: no known vulnerability is reachable"
	;;
3)
	echo "$report" >&2
	echo "check-vuln: update the modules above: go get MODULE@VERSION && go mod tidy" >&2
	exit 1
	;;
*)
	if grep -qE 'fetching vulnerabilities|vulnerability database' <<<"$report"; then
		echo "check-vuln: NOT CHECKED: the database of vulnerabilities cannot be reached:" >&2
		tail -n 1 <<<"$report" >&2
		exit 0
	fi
	echo "$report" >&2
	exit 1
	;;
esac
