package rotation_test

import (
	"rotatord/internal/rotation"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRecordsOfFormat1AreMigrated(t *testing.T) {
	if r := rotation.Migrate(rotation.Record{}); r.Format != 0 {
		t.Errorf("an empty record became %+v", r)
	}
	old := rotation.Record{Format: 1, Token: "ci", TokenID: tokenID, Step: rotation.StepSealed, Work: &rotation.Work{RotationID: "R"}}
	r := rotation.Migrate(old)
	if r.Format != rotation.RecordFormat || r.Work.TokenID != tokenID || r.Work.Spare || r.Work.RotationID != "R" || old.Work.TokenID != "" {
		t.Errorf("%+v", r)
	}
	if diff := cmp.Diff(r, rotation.Migrate(r)); diff != "" {
		t.Errorf("a record of the present format was changed: %s", diff)
	}
}
