package deploy

import (
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestDependabotKnowsEveryModule checks that no module of the repository is forgotten by dependency updates.
func TestDependabotKnowsEveryModule(t *testing.T) {
	var config struct {
		Updates []struct {
			Ecosystem   string `yaml:"package-ecosystem"`
			Directory   string
			Directories []string
		}
	}
	if err := yaml.Unmarshal([]byte(readFile(t, ".github/dependabot.yml")), &config); err != nil {
		t.Fatal(err)
	}
	var have, want []string
	for _, u := range config.Updates {
		if u.Ecosystem == "gomod" {
			have = append(have, u.Directories...)
			if u.Directory != "" {
				have = append(have, u.Directory)
			}
		}
	}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && len(entry.Name()) > 2 {
			return fs.SkipDir
		}
		if err == nil && entry.Name() == "go.mod" {
			dir, _ := filepath.Rel(root, filepath.Dir(path))
			want = append(want, strings.TrimSuffix("/"+filepath.ToSlash(dir), "."))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		t.Errorf(".github/dependabot.yml knows the modules %q, the repository has %q", have, want)
	}
}
