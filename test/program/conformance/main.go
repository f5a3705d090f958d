// Command conformance reads the output of `go test -json` of the suite for sinks, on doubles and on the real servers, and
// prints one table: a row for each case, a column for each place. It fails if a case failed, or if a double and its
// real server do not have the same results. `make conformance` calls it.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// place is a column: a sub-test in which the suite runs.
type place struct{ title, pkg, test string }

const (
	double   = "rotatord/internal/sink"
	realKV   = "rotatord/test/realvault"
	realKube = "rotatord/test/realkube"
)

// places has each double right before its real server, and the files, which have no double.
var places = []place{
	{"KV 1 double", double, "TestVaultSink/kv1_version_1_cas_required_false"}, {"KV 1 real", realKV, "TestVaultSink/kv1"},
	{"KV 2 double", double, "TestVaultSink/kv2_version_2_cas_required_false"}, {"KV 2 real", realKV, "TestVaultSink/kv2"},
	{"KV 2 cas double", double, "TestVaultSink/team/kv2_version_2_cas_required_true"}, {"KV 2 cas real", realKV, "TestVaultSink/team/cas"},
	{"Secret double", double, "TestKubernetesSink/created_beforehand_false"}, {"Secret real", realKube, "TestSink/verbs_get,_patch,_create"},
	{"Secret made before double", double, "TestKubernetesSink/created_beforehand_true"}, {"Secret made before real", realKube, "TestSink/verbs_get,_patch"},
	{"file env", double, "TestFileConformance/env"}, {"file json", double, "TestFileConformance/json"}, {"file yaml", double, "TestFileConformance/yaml"},
}

// pairs is how many columns belong to a double and its real server.
const pairs = 10

func main() {
	results := make([]map[string]string, len(places))
	var cases []string
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var e struct{ Action, Package, Test string }
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Action != "pass" && e.Action != "fail" && e.Action != "skip" {
			continue
		}
		for i, p := range places {
			name, found := strings.CutPrefix(e.Test, p.test+"/")
			if !found || e.Package != p.pkg || strings.Contains(name, "/") {
				continue
			}
			if results[i] == nil {
				results[i] = map[string]string{}
			}
			results[i][name] = e.Action
			if !slices.Contains(cases, name) {
				cases = append(cases, name)
			}
		}
	}
	if !printTable(cases, results) {
		os.Exit(1)
	}
}

// printTable prints the table and what is wrong, and reports whether nothing is.
func printTable(cases []string, results []map[string]string) bool {
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	header := []string{"case"}
	for _, p := range places {
		header = append(header, p.title)
	}
	fmt.Fprintln(out, strings.Join(header, "\t"))
	marks := map[string]string{"pass": "ok", "skip": "-", "fail": "FAILED", "": "MISSING"}
	var wrong []string
	for _, c := range cases {
		row := []string{strings.ReplaceAll(c, "_", " ")}
		for i, p := range places {
			result := results[i][c]
			row = append(row, marks[result])
			switch {
			case result == "fail" || result == "":
				wrong = append(wrong, fmt.Sprintf("%s: %s: %s", p.title, c, marks[result]))
			case i < pairs && i%2 == 1 && result != results[i-1][c]:
				wrong = append(wrong, fmt.Sprintf("%s: %s: %s, and its double: %s", p.title, c, marks[result], marks[results[i-1][c]]))
			}
		}
		fmt.Fprintln(out, strings.Join(row, "\t"))
	}
	_ = out.Flush()
	fmt.Printf("%d cases in %d places. ok: passed; -: not possible there.\n", len(cases), len(places))
	for _, w := range wrong {
		fmt.Println("WRONG", w)
	}
	return len(cases) > 0 && len(wrong) == 0
}
