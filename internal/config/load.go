package config

import (
	"context"
	"fmt"
	"reflect"

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
func LoadWithin(ctx context.Context, path string) (*Config, error) {
	data, err := smallfile.ReadOrPipe(ctx, path, smallfile.MaxConfig)
	if err != nil {
		return nil, fmt.Errorf("the configuration: %w (--config FILE says which file it is)", err)
	}
	return Parse(path, data)
}

// Parse checks data as the content of filename, which is used in messages only. The
// error is of type [Faults] and has every fault of the file, except that after a
// syntax error nothing else can be found. Both the configuration and the error
// depend on data alone, apart from the system's time zone database.
func Parse(filename string, data []byte) (*Config, error) {
	c := &checker{
		decoder: decoder{
			report: report{file: filename},
			values: map[string]position{},
			keys:   map[string]position{},
			broken: map[string]bool{},
			merged: map[string]bool{},
			fields: map[reflect.Type]map[string]reflect.StructField{},
		},
		cfg:      &Config{File: filename},
		places:   map[string]placedSink{},
		gaps:     map[gapKey]gap{},
		applied:  map[string]bool{},
		sets:     map[string]*freezeSet{},
		frozen:   map[frozenKey]*frozen{},
		renewals: map[string]bool{},
		commands: map[string]string{},
	}
	if root := c.document(data); root != nil {
		c.decode(root, "", "", reflect.ValueOf(&c.raw).Elem())
		c.check()
	}
	if len(c.faults) > 0 {
		return nil, Faults(ordered(c.faults))
	}
	c.cfg.Warnings = ordered(c.warnings)
	c.takeNotes()
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
	volatile       []volatileFile        // the files of sinks that are gone after a restart
	needVault      string                // the path of the first sink that needs a Vault; empty if none does
	needKubernetes string                // the same for the API server of a cluster
	places         map[string]placedSink // the sinks so far, by what each writes to
	commands       map[string]string     // the programs of hooks so far, by path
	gaps           map[gapKey]gap
	global         []placedFreeze        // the global freezes without a fault
	placed         []placedFreeze        // all freezes without a fault
	applied        map[string]bool       // global freezes that apply to a token, by path
	sets           map[string]*freezeSet // by the paths of their freezes
	frozen         map[frozenKey]*frozen
	renewals       map[string]bool // renew_for in the file, by path: is there a renew_before that goes with it?
}

func (c *checker) check() {
	c.checkListen()
	c.checkWebNames()
	c.checkLog()
	c.cfg.Metrics.PerToken = c.oneOf("metrics.per_token", c.raw.Metrics.PerToken, "full", "full", "essential")
	c.checkState()
	c.checkAdminSocket()
	c.checkAudit()
	c.checkAllow()
	c.checkAccounts()
	c.checkTokens()
	c.checkVault()
	c.checkKubernetes()
	c.checkNotify()
	c.checkSharedPlaces()
	c.checkSharedUse()
	c.checkVolatile()
}

// wrong reports the value at path.
func (c *checker) wrong(path, format string, args ...any) {
	c.addf(c.values[path], path, format, args...)
}

// missing reports a field that is not there, at the mapping where it should be.
func (c *checker) missing(parent, field, format string, args ...any) {
	if !c.merged[parent] {
		c.addf(c.values[parent], join(parent, field), "is missing: "+format, args...)
	}
}

func (c *checker) warn(path, format string, args ...any) {
	c.warnings = append(c.warnings, c.fault(c.values[path], path, format, args...))
}

// or returns the value or, if there is none, the default.
func or[T any](value *T, otherwise T) T {
	if value == nil {
		return otherwise
	}
	return *value
}
