package config

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"rotatord/internal/smallfile"
)

// ListenIn returns the address in listen of the configuration at path, or the default. Everything else in the file may be
// wrong: a daemon that runs was started with an earlier content, and goes on.
func ListenIn(ctx context.Context, path string) (string, error) {
	data, err := smallfile.ReadOrPipe(ctx, path, smallfile.MaxConfig)
	if err != nil {
		return "", fmt.Errorf("the configuration: %w (--config FILE says which file it is)", err)
	}
	var file struct {
		Listen string `yaml:"listen"`
	}
	if err := yaml.Unmarshal(data, &file); err != nil { // not YAML, so the line itself
		if found := listenLine.FindSubmatch(data); found != nil {
			file.Listen = strings.Trim(string(found[1]), `"'`)
		}
	}
	return cmp.Or(file.Listen, defaultListen), nil
}

// listenLine is the line of listen, without a comment.
var listenLine = regexp.MustCompile(`(?m)^listen:[ \t]+([^\s#]+)`)
