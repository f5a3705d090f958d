package event

import "time"

// This file has the details of the record of events (package audit) and of what is written to it before a request leaves.

// RequestLeaving tells that a request that changes or ends a secret is about to leave. It is the only event that is
// written to the record before it happens, and not published: package rotation hands it to its Recorder.
type RequestLeaving struct {
	Operation  string // "rotate", "create", "delete" or "revoke"
	RotationID string // empty outside of a rotation
	Trigger    string // why the rotation began; empty outside of one
	TokenID    string // the service token; empty if it is created
	Creates    string // the name of the service token that is created; empty otherwise
	Slot       time.Time
	Grace      time.Duration // how long the previous secret works, of a rotate request
}

func (d RequestLeaving) kind() Kind { return RequestLeaves }
func (d RequestLeaving) more(Event) string {
	if d.Creates != "" {
		return d.Operation + " " + d.Creates
	}
	return d.Operation
}

func (d RequestLeaving) attrs(Event) []any {
	attrs := []any{"operation", d.Operation}
	if d.RotationID != "" {
		attrs = append(attrs, "rotation_id", d.RotationID, "trigger", d.Trigger)
	}
	if d.TokenID != "" {
		attrs = append(attrs, "token_id", d.TokenID)
	}
	if d.Creates != "" {
		attrs = append(attrs, "creates", d.Creates)
	}
	if d.Operation == "rotate" {
		attrs = append(attrs, "grace", d.Grace.String())
	}
	return withTime(attrs, "slot", d.Slot)
}

// AuditChain tells that a chain of lines begins in the record, and why.
type AuditChain struct {
	File string
	// Damage says what is wrong with the lines before it; empty for the first chain of all.
	Damage string
	// Head is the last line that is known of the chain before it; empty if there is none. Kept is where its last
	// file is now; empty if there is none.
	Head, Kept string
}

func (d AuditChain) kind() Kind        { return pick(d.Damage == "", AuditBegan, AuditDamaged) }
func (d AuditChain) more(Event) string { return d.Damage }
func (d AuditChain) attrs(Event) []any {
	attrs := []any{"file", d.File}
	if d.Damage != "" {
		attrs = append(attrs, "damage", d.Damage, "head_before", d.Head, "kept", d.Kept)
	}
	return attrs
}

// AuditFile tells that the record goes on in a new file. Before is the file before it, Head its last line, and
// KeptFrom the number of the first line that is still kept.
type AuditFile struct {
	File, Before, Head string
	KeptFrom           uint64
}

func (d AuditFile) kind() Kind        { return AuditContinued }
func (d AuditFile) more(Event) string { return "" }
func (d AuditFile) attrs(Event) []any {
	return []any{"file", d.File, "before", d.Before, "head", d.Head, "kept_from", d.KeptFrom}
}

// AuditTorn tells that an unfinished end was cut off the record, which a crash has left. Kept is where its bytes are
// now; empty if they could not be kept.
type AuditTorn struct {
	File  string
	Bytes int64
	Kept  string
}

func (d AuditTorn) kind() Kind        { return AuditRepaired }
func (d AuditTorn) more(Event) string { return "" }
func (d AuditTorn) attrs(Event) []any {
	return []any{"file", d.File, "bytes", d.Bytes, "kept", d.Kept}
}

// AuditTouched tells that another program has changed the file of the record while the daemon wrote it, and that its chain
// goes on. Bytes is how much was appended; Kept is where that is now, and empty if it could not be kept or if there is none.
type AuditTouched struct {
	File, What string
	Bytes      int64
	Kept       string
}

func (d AuditTouched) kind() Kind        { return AuditChanged }
func (d AuditTouched) more(Event) string { return d.What }
func (d AuditTouched) attrs(Event) []any {
	attrs := []any{"file", d.File, "what", d.What}
	if d.Bytes > 0 {
		attrs = append(attrs, "bytes", d.Bytes, "kept", d.Kept)
	}
	return attrs
}

// AuditGap tells how many events are missing in the record, because it could not be written.
type AuditGap struct {
	Events uint64
	Since  time.Time
	Err    error // the last reason; nil if it is not known any more
}

func (d AuditGap) kind() Kind        { return AuditLost }
func (d AuditGap) failure() error    { return d.Err }
func (d AuditGap) more(Event) string { return "" }
func (d AuditGap) attrs(Event) []any {
	return withError([]any{"events", d.Events, "since", d.Since}, d.Err)
}

// AuditHeadSeen carries the head of the record into the log, from where other machines may have it. Head is
// SEQ:HASH, as rotatord audit verify --head takes it.
type AuditHeadSeen struct {
	File, Head string
}

func (d AuditHeadSeen) kind() Kind        { return AuditHead }
func (d AuditHeadSeen) more(Event) string { return d.Head }
func (d AuditHeadSeen) attrs(Event) []any { return []any{"file", d.File, "head", d.Head} }
