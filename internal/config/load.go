package config

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"rotatord/internal/config/raw"
	"rotatord/internal/smallfile"
)

//go:generate go run ./schemagen -out ../../docs/config.schema.json

// Load reads and checks the configuration file at path. It reads only that file: it
// reads no secret and sends no request. If the file could be read and is wrong, the error is of type
// [Faults].
func Load(path string) (*Config, error) { return LoadWithin(context.Background(), path) }

// LoadWithin is Load that gives up when ctx ends. It never takes much longer than
// [smallfile.Wait], whatever the file is.
func LoadWithin(ctx context.Context, path string) (*Config, error) { return LoadAgain(ctx, path, nil) }

// LoadAgain is LoadWithin that returns inForce itself if it was read from this file with the same content, and if the
// directories of its files are the same ones: to read a large file needs much memory and seconds.
func LoadAgain(ctx context.Context, path string, inForce *Config) (*Config, error) {
	data, err := smallfile.ReadOrPipe(ctx, path, smallfile.MaxConfig)
	if err != nil {
		return nil, fmt.Errorf("the configuration: %w (--config FILE says which file it is)", err)
	}
	digest := sha256.Sum256(data)
	if inForce != nil && inForce.File == path && inForce.digest == digest && inForce.folders.areSame() {
		return inForce, nil
	}
	c, err := Parse(path, data)
	if err != nil {
		return nil, err
	}
	c.digest = digest
	return c, nil
}

// Parse checks data as the content of filename, which is used in messages only. The
// error is of type [Faults] and has every fault of the file, except that after a
// syntax error nothing else can be found. Both the configuration and the error
// depend on data alone, apart from the system's time zone database.
func Parse(filename string, data []byte) (*Config, error) {
	return parse(filename, data, partSize)
}

// parse reads the entries of tokens in parts of at least size bytes, if it can; 0 to read the file as a whole.
func parse(filename string, data []byte, size int) (*Config, error) {
	r := report{file: filename}
	if !r.isText(data) {
		return nil, Faults(r.faults)
	}
	if size > 0 {
		if f, ok := apart(data, size); ok {
			if cfg, err := check(filename, f); !errors.Is(err, errWhole) {
				return cfg, err
			}
		}
	}
	root := r.document(data)
	if root == nil {
		return nil, Faults(r.faults)
	}
	return check(filename, &file{root: root})
}

// check returns the configuration or its faults. If the file is in parts, it may return errWhole.
func check(filename string, f *file) (*Config, error) {
	return newChecker(filename, f).config()
}

func newChecker(filename string, f *file) *checker {
	return &checker{
		decoder: decoder{
			report: report{file: filename},
			top:    newMarks(),
			inner:  newMarks(),
			file:   f,
			names:  make(map[string]int, f.count),
			paths:  map[pathStep]string{},
			shapes: map[reflect.Type]shape{},
		},
		cfg:      &Config{File: filename},
		places:   make(map[place]placedWriter, f.count),
		folders:  folders{},
		twins:    make(map[twin]twinPlace, f.count),
		gaps:     map[gapKey]gap{},
		applied:  map[string]bool{},
		sets:     map[string]*freezeSet{},
		frozen:   map[frozenKey]*frozen{},
		renewals: map[string]bool{},
		texts:    map[string]string{},
		hints:    map[hintKey]hint{},
		joined:   map[joinedTexts]string{},
		tables:   map[reflect.Type]map[string]reflect.Type{},
		valid:    map[gapKey]bool{},
	}
}

func (c *checker) config() (*Config, error) {
	c.decode(c.file.root, "", "", reflect.ValueOf(&c.raw).Elem())
	if err := c.check(); err != nil {
		return nil, err
	}
	if len(c.faults) > 0 {
		return nil, Faults(ordered(c.faults))
	}
	c.cfg.Warnings = ordered(c.warnings)
	c.takeNotes()
	c.cfg.folders = c.folders
	return c.cfg, nil
}

// checker turns the raw file into a Config by the rules that a type cannot express.
// The rules see only what decoding accepted. They never report a field as missing that
// is written and wrong.
type checker struct {
	decoder
	raw            raw.File
	cfg            *Config
	warnings       []Fault
	volatile       []volatileFile // the files of sinks that are gone after a restart
	needVault      string         // the path of the first sink that needs a Vault; empty if none does
	needKubernetes string         // the same for the API server of a cluster
	files          fileSinks
	places         map[place]placedWriter // the sinks so far, by what each writes to
	folders        folders                // of the sinks so far
	twins          map[twin]twinPlace     // the service tokens so far
	keys           []entryKey             // of the entries of cfg.Tokens, in the order of the file
	commands       []placedCommand        // the programs of hooks that tokens have
	texts          map[string]string      // see checker.intern
	joined         map[joinedTexts]string
	common         *freezeSet                               // of tokens that say nothing about freezes; nil if not known yet
	hints          map[hintKey]hint                         // see checker.hint
	compared       int                                      // names that were compared for hints, and patterns to names of tokens
	sortedNames    []string                                 // of all tokens; nil if not needed yet
	tables         map[reflect.Type]map[string]reflect.Type // the kinds in each table, by key
	valid          map[gapKey]bool                          // schedules that can be read
	gaps           map[gapKey]gap
	global         []placedFreeze        // the global freezes without a fault
	usable         []placedFreeze        // all freezes without a fault
	applied        map[string]bool       // global freezes that apply to a token, and commands in defaults that one has, by path
	sets           map[string]*freezeSet // by the paths of their freezes
	frozen         map[frozenKey]*frozen
	renewals       map[string]bool // renew_for of defaults, by path: is there a renew_before that goes with it?
}

// check applies the rules. It may return errWhole; see decoder.entries.
func (c *checker) check() error {
	c.checkListen()
	c.checkWebNames()
	c.checkLog()
	c.cfg.Metrics.PerToken = c.oneOf("metrics.per_token", c.raw.Metrics.PerToken, "full", "full", "essential")
	c.checkState()
	c.checkAdminSocket()
	c.checkAudit()
	c.checkAllow()
	c.checkAccounts()
	if err := c.checkTokens(); err != nil {
		return err
	}
	c.checkVault()
	c.checkKubernetes()
	c.checkNotify()
	c.checkSharedPlaces()
	c.checkSharedUse()
	c.checkVolatile()
	return nil
}

// wrong reports the value at path.
func (c *checker) wrong(path, format string, args ...any) {
	c.addf(c.value(c.local(path)), path, format, args...)
}

// missing reports a field that is not there, at the mapping where it should be.
func (c *checker) missing(parent, field, format string, args ...any) {
	if !c.isMerged(parent) {
		c.addf(c.value(parent), join(parent, field), "is missing: "+format, args...)
	}
}

// placed is where path is, to be told when its entry is no longer read.
func (c *checker) placed(path string) spot {
	s := spot{path: path, at: c.value(path)}
	if strings.HasPrefix(path, inEntry) {
		s.entry = c.entry
	}
	return s
}

// wrongAt and warnAt report what was placed.
func (c *checker) wrongAt(s spot, format string, args ...any) {
	c.addf(s.at, s.String(), format, args...)
}

func (c *checker) warnAt(s spot, format string, args ...any) {
	c.warnings = append(c.warnings, c.fault(s.at, s.String(), format, args...))
}

// maxInterned is how many texts are remembered by intern.
const maxInterned = 4096

// intern returns a text that is equal and, if tokens have it in common, the same one for all of them.
func (c *checker) intern(text string) string {
	same, known := c.texts[text]
	if !known {
		if len(c.texts) >= maxInterned {
			clear(c.texts)
		}
		same = text
		c.texts[text] = text
	}
	return same
}

// internJoined is intern for a kind and a path of two parts. The text is the same wherever the path is parted,
// also if the second part is empty.
func (c *checker) internJoined(kind, first, second string) string {
	key := joinedTexts{kind, first, second}
	same, known := c.joined[key]
	if !known {
		if len(c.joined) >= maxInterned {
			clear(c.joined)
		}
		if same = kind + first; second != "" {
			same += "/" + second
		}
		c.joined[key] = same
	}
	return same
}

type joinedTexts struct{ kind, first, second string }

func (c *checker) warn(path, format string, args ...any) {
	c.warnings = append(c.warnings, c.fault(c.value(c.local(path)), path, format, args...))
}

// or returns the value or, if there is none, the default.
func or[T any](value *T, otherwise T) T {
	if value == nil {
		return otherwise
	}
	return *value
}
