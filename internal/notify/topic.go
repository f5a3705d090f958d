package notify

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/status"
)

// Snapshot is what is known at one moment. Its texts may be from elsewhere: they are scrubbed when a message is made.
type Snapshot struct {
	At       time.Time
	Started  time.Time // when the process started
	Tokens   []status.Token
	Checks   []status.Check
	Replicas *status.Replicas
	// Listed reports whether the service tokens of an account were listed since the start: before that it is not known
	// which are gone, disabled or about to expire.
	Listed func(account string) bool
}

// topicOf has the topic of each kind of trouble. A kind that is not here is in failing; a test wants all.
var topicOf = map[string]string{
	"cut_off": config.TopicStranded, "disabled": config.TopicStranded, "expired": config.TopicStranded, "refused_in_use": config.TopicStranded,
	"refused": config.TopicStranded, "reissue_owed": config.TopicStranded, "sink_empty": config.TopicStranded,
	"gone":            config.TopicGone,
	"rotated_outside": config.TopicOutsideChange, "sink_changed": config.TopicOutsideChange,
	"in_doubt": config.TopicInDoubt, "overtaken": config.TopicInDoubt, "not_sealed": config.TopicInDoubt, "late_answer": config.TopicInDoubt,
	"grace_ending": config.TopicPending, "not_delivered": config.TopicPending, "sink_never_written": config.TopicPending,
	"version_deletes_soon": config.TopicExpiring, "expires_very_soon": config.TopicExpiring, "version_deletes": config.TopicExpiring,
	"renewal_failing": config.TopicExpiring, "expires_soon": config.TopicExpiring,
	"failing": config.TopicFailing, "unread": config.TopicFailing, "sink_unreadable": config.TopicFailing, "hook_failing": config.TopicFailing, "not_deleted": config.TopicFailing, "unverified": config.TopicFailing,
	"check": config.TopicFailing, "stands_aside": config.TopicFailing, "ledger_unread": config.TopicFailing, "replica_dead": config.TopicFailing,
}

// Topic returns the topic of a kind of trouble.
func Topic(kind string) string { return cmp.Or(topicOf[kind], config.TopicFailing) }

// ended says in words that a kind of trouble is over.
var ended = map[string]string{
	"cut_off": "clients have a secret that works again", "disabled": "enabled at Cloudflare again", "expired": "the service token does not end any more",
	"refused_in_use": "the secret in use is accepted again", "refused": "the new secret is accepted", "reissue_owed": "the lost secret was replaced",
	"hook_failing": "the hooks that follow the rotation have run",
	"sink_empty":   "the sink holds its secret again", "gone": "Cloudflare has the service token, or the configuration names another one",
	"rotated_outside": "the secret in the sinks is our own again", "sink_changed": "the sink holds what was written to it",
	"in_doubt": "no longer in doubt", "overtaken": "an operator has decided", "not_sealed": "the new secret is sealed, or was not issued",
	"grace_ending": "the new secret is in every sink", "not_delivered": "the new secret is in every sink", "sink_never_written": "the sink was written",
	"expires_soon": "the service token does not end soon", "expires_very_soon": "the service token does not end soon", "renewal_failing": "the service token was renewed",
	"failing": "rotations work again", "check": "good again", "replica_dead": "gives signs of life again", "stands_aside": "works again", "ledger_unread": "reads the shared ledger again",
}

// item is one thing that is wrong: a token in a topic, a check, or a replica.
type item struct {
	key      string // topic/t/NAME, topic/c/CHECK/SUBJECT or topic/r/KIND/NAMES
	topic    string
	kind     string
	token    string // empty for a check or a replica
	severity status.Severity
	rank     int // a smaller one is worse
	since    time.Time
	trouble  status.Trouble // of a check or a replica
}

// view is a snapshot with its items by key.
type view struct {
	Snapshot
	items  map[string]item
	tokens map[string]int // index by name
}

// newView computes what is wrong in a snapshot.
func newView(s Snapshot) view {
	v := view{Snapshot: s, items: make(map[string]item), tokens: make(map[string]int, len(s.Tokens))}
	for i, t := range s.Tokens {
		v.tokens[t.Name] = i
	}
	for _, trouble := range status.AllTroubles(s.Tokens, s.Checks, s.Replicas, s.At) {
		topic := Topic(trouble.Kind)
		made := item{topic: topic, kind: trouble.Kind, severity: trouble.Severity, rank: rankOf(trouble), since: trouble.Since, trouble: trouble}
		switch {
		case trouble.Check != nil:
			made.key = topic + "/c/" + trouble.Check.Name + "/" + trouble.Check.Subject
			v.put(made)
		case len(trouble.Tokens) == 0:
			made.key = topic + "/r/" + trouble.Kind + "/" + strings.Join(trouble.Replicas, "+")
			v.put(made)
		}
		made.trouble = status.Trouble{}
		if len(trouble.Tokens) > 1 {
			made.since = time.Time{} // it is of the first of them
		}
		for _, name := range trouble.Tokens {
			made.key, made.token = topic+"/t/"+name, name
			v.put(made)
		}
	}
	return v
}

// put adds an item; of two with one key the worse one stays.
func (v *view) put(i item) {
	if old, there := v.items[i.key]; !there || i.rank < old.rank {
		v.items[i.key] = i
	}
}

// warningRank is added to the rank of what is not critical.
const warningRank = 1000

// rankOf returns how bad a trouble is: all critical ones come first, then the order of status.
func rankOf(t status.Trouble) int {
	rank := slices.Index(status.Kinds(), t.Kind)
	if rank < 0 {
		rank = len(status.Kinds())
	}
	if t.Severity != status.Critical {
		rank += warningRank
	}
	return rank
}

// needsListing are the topics of which nothing is known before the account was listed.
var needsListing = []string{config.TopicGone, config.TopicStranded, config.TopicExpiring, config.TopicOutsideChange}

// settleTime is how long after the start something that is not there counts as over even if nothing was looked at.
const settleTime = 30 * time.Minute

// over reports whether something that was told and is not wrong in this view is over, and does not only seem so
// because it was not looked at since the start.
func (v *view) over(key string) bool {
	if v.At.Sub(v.Started) >= settleTime {
		return true
	}
	topic, rest, _ := strings.Cut(key, "/")
	what, subject, _ := strings.Cut(rest, "/")
	switch what {
	case "t":
		i, configured := v.tokens[subject]
		if !configured {
			return true
		}
		t := v.Tokens[i]
		return !t.Unread && (!slices.Contains(needsListing, topic) || v.Listed == nil || v.Listed(t.Account))
	case "c":
		name, of, _ := strings.Cut(subject, "/")
		return slices.ContainsFunc(v.Checks, func(c status.Check) bool { return c.Name == name && c.Subject == of && c.OK && !c.LookedAt.IsZero() })
	case "r":
		return v.Replicas != nil && !v.Replicas.SyncedAt.IsZero()
	}
	return true
}
