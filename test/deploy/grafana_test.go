package deploy

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

type datasource struct{ Type, UID string }

type panel struct {
	ID          int
	Type, Title string
	Datasource  *datasource
	GridPos     struct{ H, W, X, Y int }
	Panels      []panel
	Targets     []struct {
		RefID, Expr string
		Datasource  datasource
	}
	FieldConfig struct{ Defaults struct{ Unit string } }
}

type dashboard struct {
	UID, Title    string
	SchemaVersion int
	Annotations   struct {
		List []struct {
			Name, Expr string
			Datasource datasource
		}
	}
	Templating struct {
		List []struct {
			Name, Type, Definition string
			Datasource             *datasource
		}
	}
	Panels []panel
}

// withVariables puts values that parse in the place of Grafana's variables.
var withVariables = strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h", "$job", ".*", "$instance", ".*", "$token", ".*")

func TestDashboard(t *testing.T) {
	var d dashboard
	if err := json.Unmarshal([]byte(readFile(t, "deploy/grafana/rotatord.json")), &d); err != nil {
		t.Fatal(err)
	}
	if d.UID == "" || d.Title == "" || d.SchemaVersion < 38 {
		t.Errorf("uid %q, title %q, schema version %d: want Grafana 10 or newer", d.UID, d.Title, d.SchemaVersion)
	}

	metrics, values := metricTable(t)
	prometheus := datasource{"prometheus", "${datasource}"}
	check := func(where, expr string, source datasource) {
		t.Helper()
		if source != prometheus {
			t.Errorf("%s: data source %+v is not the variable", where, source)
		}
		plain := withVariables.Replace(expr)
		if strings.Contains(plain, "$") {
			t.Errorf("%s: an unknown variable in %s", where, plain)
		}
		for _, fault := range checkExpr(plain, metrics, values, nil) {
			t.Errorf("%s: %s", where, fault)
		}
		// Each selector must follow the variables, or the panel would show others' data.
		for _, selector := range regexp.MustCompile(`(rotatord_[a-z_]+)(\{[^}]*\})?`).FindAllStringSubmatch(expr, -1) {
			want := []string{"job", "instance"}
			if slices.Contains(metrics[selector[1]].labels, "token") {
				want = append(want, "token")
			}
			for _, name := range want {
				if !strings.Contains(selector[2], fmt.Sprintf(`%s=~"$%s"`, name, name)) {
					t.Errorf("%s: %s does not follow $%s", where, selector[0], name)
				}
			}
		}
	}

	variables := map[string]bool{}
	for _, v := range d.Templating.List {
		variables[v.Name] = true
		if v.Type != "query" {
			continue
		}
		if v.Datasource == nil || *v.Datasource != prometheus {
			t.Errorf("$%s: data source %+v", v.Name, v.Datasource)
		}
		call := regexp.MustCompile(`^label_values\((rotatord_[a-z_]+)(\{.*\})?, ([a-z]+)\)$`).FindStringSubmatch(v.Definition)
		if call == nil {
			t.Errorf("$%s: %s", v.Name, v.Definition)
			continue
		}
		for _, fault := range checkExpr(fmt.Sprintf("group by (%s) (%s%s)", call[3], call[1], call[2]), metrics, values, nil) {
			t.Errorf("$%s: %s", v.Name, fault)
		}
	}
	for _, name := range []string{"datasource", "job", "instance", "token"} {
		if !variables[name] {
			t.Errorf("no variable %s", name)
		}
	}
	for _, a := range d.Annotations.List {
		if a.Expr != "" {
			check("annotation "+a.Name, a.Expr, a.Datasource)
		}
	}

	ids, cells, queries := map[int]string{}, map[[2]int]string{}, 0
	for _, p := range d.Panels {
		if other, taken := ids[p.ID]; taken {
			t.Errorf("%s and %s have the same id", p.Title, other)
		}
		ids[p.ID] = p.Title
		g := p.GridPos
		if g.W < 1 || g.H < 1 || g.X < 0 || g.X+g.W > 24 {
			t.Errorf("%s lies outside of the grid: %+v", p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" {
					t.Fatalf("%s covers %s", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Datasource == nil || *p.Datasource != prometheus {
			t.Errorf("%s: data source %+v", p.Title, p.Datasource)
		}
		if p.Title == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 {
			t.Errorf("panel %d (%s): no title, no unit or no query", p.ID, p.Title)
		}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if refs[target.RefID] {
				t.Errorf("%s: two queries %s", p.Title, target.RefID)
			}
			refs[target.RefID] = true
			check(p.Title, target.Expr, target.Datasource)
			queries++
		}
	}
	if queries < 30 {
		t.Errorf("%d queries were checked: was the form of the file changed?", queries)
	}
}

// Several replicas show the same tokens, accounts and checks, so no panel adds up or counts their series without taking
// one for each of them first.
func TestDashboardCountsOnce(t *testing.T) {
	var d dashboard
	if err := json.Unmarshal([]byte(readFile(t, "deploy/grafana/rotatord.json")), &d); err != nil {
		t.Fatal(err)
	}
	const shared = `rotatord_(token_[a-z_]+|orders_pending|replaced_tokens|sink_finding_timestamp_seconds|check_ok|answer_copies_pending|replica_up|inventory_[a-z_]+)\{`
	several := regexp.MustCompile(`\b(sum|count|avg)( by \([^)]*\))? ?\((\(?time\(\) - )?` + shared)
	for _, bad := range []string{`sum(rotatord_token_paused{token=~"$token"})`, `count((time() - rotatord_token_next_rotation_timestamp_seconds{job="a"}) > 1)`, `count(rotatord_check_ok{job="a"} == 0)`} {
		if !several.MatchString(bad) {
			t.Errorf("%s is not found", bad)
		}
	}
	once := 0
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			if several.MatchString(target.Expr) {
				t.Errorf("%s: %s counts each replica", p.Title, target.Expr)
			}
			if regexp.MustCompile(`(max|min|group) by \([^)]*\b(token|account|check|replica|job)\b[^)]*\) \(` + shared).MatchString(target.Expr) {
				once++
			}
		}
	}
	if once < 20 {
		t.Errorf("%d queries take one series of several replicas: this test shows nothing", once)
	}
}
