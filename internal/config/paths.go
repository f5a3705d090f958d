package config

import (
	"path/filepath"
	"regexp"
	"strings"
)

// systemdDirectories are the variables and specifiers for directories in a unit, and their values for
// rotatord.service.
var systemdDirectories = map[string]string{
	"CREDENTIALS_DIRECTORY": "/run/credentials/rotatord.service", "%d": "/run/credentials/rotatord.service",
	"STATE_DIRECTORY": "/var/lib/rotatord", "%S": "/var/lib", "RUNTIME_DIRECTORY": "/run/rotatord", "%t": "/run",
	"CONFIGURATION_DIRECTORY": "/etc/rotatord", "%E": "/etc", "%h": "/home/NAME", "HOME": "/home/NAME",
}

var (
	pathVariable  = regexp.MustCompile(`\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?`)
	pathSpecifier = regexp.MustCompile(`(?:^|/)(%[A-Za-z])(?:/|$)`)
	windowsPath   = regexp.MustCompile(`^[A-Za-z]:[\\/]|^\\\\`)
)

// hasTemplate reports what a template or a shell would fill in.
func hasTemplate(text string) bool {
	return strings.Contains(text, "{{") || strings.Contains(text, "}}") || strings.Contains(text, "${")
}

// pathProblem says which part of a path would have to be expanded, and is not; empty if there is none.
func pathProblem(path string) string {
	because := ""
	switch {
	case path == "~" || strings.HasPrefix(path, "~/"):
		return "~ is not expanded: write the home directory out, such as /home/NAME/..."
	case strings.HasPrefix(path, "~"):
		return "begins with ~, which is not expanded: write the directory out"
	case strings.Contains(path, "{{"):
		return "is a template and is not filled in: write the path out"
	case strings.Contains(path, "://"):
		return "is a URL: write the path alone, which begins with /"
	case !strings.HasPrefix(path, "/") && windowsPath.MatchString(path):
		return "is a path of Windows: write one that begins with /"
	case !strings.ContainsAny(path, "$%"):
		return ""
	}
	if found := pathVariable.FindStringSubmatch(path); found != nil {
		because = "has a variable in it, and none is expanded here: write the directory out"
		if meant, known := systemdDirectories[found[1]]; known {
			because += ", such as " + meant
		}
	} else if found := pathSpecifier.FindStringSubmatch(path); found != nil {
		because = found[1] + " has a meaning in a unit of systemd only, and is not expanded here: write the directory out"
		if meant, known := systemdDirectories[found[1]]; known {
			because += ", such as " + meant
		}
	}
	return because
}

// absolute checks the path of something that the daemon creates. advice ends the message about a
// relative path.
func (c *checker) absolute(path, text, advice string) bool {
	switch problem := pathProblem(text); {
	case problem != "":
		c.wrong(path, "%s", problem)
	case !filepath.IsAbs(text):
		c.wrong(path, "%s", advice)
	default:
		return true
	}
	return false
}

// filePath checks the path of a file that is read.
func (c *checker) filePath(path string, value *string) string {
	if value == nil {
		return ""
	}
	switch problem := pathProblem(*value); {
	case problem != "":
		c.wrong(path, "%s", problem)
	case strings.HasSuffix(*value, "/"), strings.HasSuffix(*value, "/."), strings.HasSuffix(*value, "/.."), *value == ".", *value == "..":
		c.wrong(path, "is a directory: give the file in it")
	case !filepath.IsAbs(*value):
		c.warn(path, "is relative to the directory that the daemon is started in, which is / under systemd: write the whole path, from / on")
	}
	return *value
}
