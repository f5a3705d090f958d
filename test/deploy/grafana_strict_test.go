package deploy

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	sdk "github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// Grafana's own SDK knows every field of a dashboard, of each kind of panel and of a query. A field that it
// does not know is a mistake that Grafana would pass over in silence.
func TestDashboardStrictly(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	content := readFile(t, "deploy/grafana/rotatord.json")
	decode := func(content []byte) error {
		var d sdk.Dashboard //lint:ignore SA1019 the format of dashboards that every Grafana imports; v2 needs Grafana 12
		err := d.UnmarshalJSONStrict(content)
		if faults, ok := errors.AsType[cog.BuildErrors](err); ok && len(faults) == 0 {
			return nil // the SDK returns an empty list where it found nothing
		}
		return err
	}
	if err := decode([]byte(content)); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(panel map[string]any){
		"a field of a panel":   func(p map[string]any) { p["descripton"] = "x" },
		"a field of a query":   func(p map[string]any) { p["targets"].([]any)[0].(map[string]any)["legend"] = "x" },
		"a field of options":   func(p map[string]any) { p["options"].(map[string]any)["colourMode"] = "none" },
		"the type of a number": func(p map[string]any) { p["gridPos"].(map[string]any)["w"] = "3" },
	} {
		var d map[string]any
		if err := json.Unmarshal([]byte(content), &d); err != nil {
			t.Fatal(err)
		}
		spoil(d["panels"].([]any)[0].(map[string]any))
		spoiled, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if decode(spoiled) == nil {
			t.Errorf("%s that does not exist is not found: this test shows nothing", name)
		}
	}
}

// At the top stand at most eight numbers: what decides whether a person is needed. All else is shown over time.
func TestDashboardHasFewNumbers(t *testing.T) {
	var d struct {
		Panels []struct {
			Type    string
			GridPos struct{ Y int }
		}
	}
	if err := json.Unmarshal([]byte(readFile(t, "deploy/grafana/rotatord.json")), &d); err != nil {
		t.Fatal(err)
	}
	numbers := 0
	for _, p := range d.Panels {
		if p.Type != "stat" {
			continue
		}
		if numbers++; p.GridPos.Y != 0 {
			t.Errorf("a number lies at row %d", p.GridPos.Y)
		}
	}
	if numbers < 1 || numbers > 8 {
		t.Errorf("%d numbers, want 1 to 8", numbers)
	}
}
