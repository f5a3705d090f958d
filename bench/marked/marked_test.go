package marked

import "testing"

func TestReplace(t *testing.T) {
	const page = "a\n<!-- make bench: one -->\nold\n<!-- end of make bench -->\nb\n<!-- make bench: two -->\n<!-- end of make bench -->\n"
	got, err := Replace(page, "two", "new\n")
	if want := "a\n<!-- make bench: one -->\nold\n<!-- end of make bench -->\nb\n<!-- make bench: two -->\nnew\n<!-- end of make bench -->\n"; err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
	if text, err := Find(page, "one"); err != nil || text != "old\n" {
		t.Errorf("%q, %v", text, err)
	}
	for _, bad := range []string{"", "<!-- make bench: one -->\nold\n", page + page} {
		if _, err := Replace(bad, "one", "new\n"); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestCells(t *testing.T) {
	got := Cells("| x | 1 | 1,000 |\n| --- | --- | --- |\n| rest | 30 MiB |  |\n| time | 2 s | 3 s |\n")
	if len(got) != 2 || got["rest"]["1"] != "30 MiB" || got["rest"]["1,000"] != "" || got["time"]["1,000"] != "3 s" {
		t.Errorf("%q", got)
	}
}
