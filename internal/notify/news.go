package notify

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/moment"
	"rotatord/internal/status"
)

// How something changed.
const (
	ChangeNew       = "new"
	ChangeOther     = "changed" // in the same topic it is another kind of trouble now, or a worse one
	ChangeStill     = "still"   // it lasts, and repeat is over
	ChangeRecovered = "recovered"
	ChangeHappened  = "happened" // no state remains of it
)

// change is one piece of news.
type change struct {
	how string
	item
	was *told // nil if it was not told
	// mixed is set if it is over and something else is wrong with the token.
	mixed bool
}

// scope says which items are in a lane's book.
type scope int

const (
	ofAll     scope = iota
	ofProcess       // what only this process knows: its checks, and whether it stands aside
	ofFleet         // tokens, and the other replicas
)

// has reports whether a key is in the scope.
func (s scope) has(key string) bool {
	_, rest, _ := strings.Cut(key, "/")
	fleet := strings.HasPrefix(rest, "t/") || strings.HasPrefix(rest, "r/replica_dead/")
	return s == ofAll || fleet == (s == ofFleet)
}

// wants reports whether a receiver is told of a key.
func wants(c config.Receiver, s scope, key string) bool {
	topic, rest, _ := strings.Cut(key, "/")
	if !s.has(key) || !c.WantsTopic(topic) {
		return false
	}
	if token, of := strings.CutPrefix(rest, "t/"); of {
		return c.WantsToken(token)
	}
	return len(c.Tokens) == 0 && rest != "c/"+status.CheckNotify+"/"+c.Name // a receiver is not told that it cannot be told
}

// compared is the difference between what is wrong and what was told.
type compared struct {
	news []change
	// forget are keys that are no longer in told, without news.
	forget []string
	// relabel are items that are less bad than what was told, which is not news.
	relabel []item
	// next is when something becomes news by itself; zero if nothing does.
	next time.Time
}

// compare returns what is news. seen has when each item that was not told was first seen, and is kept up to date.
func compare(c config.Receiver, s scope, v view, p *page, seen map[string]time.Time) (d compared) {
	later := func(t time.Time) { d.next = moment.MinNonZero(d.next, t) }
	repeats := false
	waiting := make(map[string]bool) // tokens with a warning that is not told yet
	for key, i := range v.items {
		if !wants(c, s, key) {
			continue
		}
		was, known := p.Told[key]
		switch {
		case !known:
			first, there := seen[key]
			if !there {
				first = v.At
				seen[key] = first
			}
			if ready := moment.MinNonZero(first, i.since).Add(c.Wait); i.severity != status.Critical && v.At.Before(ready) {
				later(ready)
				waiting[i.token] = i.token != ""
				continue
			}
			d.news = append(d.news, change{how: ChangeNew, item: i})
		case i.kind != was.Kind && isCritical(was.Rank) && !isCritical(i.rank): // it became less bad
			d.relabel = append(d.relabel, i)
		case i.kind != was.Kind, i.rank < was.Rank:
			d.news = append(d.news, change{how: ChangeOther, item: i, was: &was})
		case c.Repeat > 0:
			if again := was.At.Add(c.Repeat); v.At.Before(again) {
				later(again)
			} else {
				repeats = true
			}
		}
	}
	if repeats { // what is due soon goes into the same message
		for key, i := range v.items {
			if was, known := p.Told[key]; known && wants(c, s, key) && i.kind == was.Kind && i.rank >= was.Rank && !v.At.Before(was.At.Add(c.Repeat/2)) {
				d.news = append(d.news, change{how: ChangeStill, item: i, was: &was})
			}
		}
	}
	maps.DeleteFunc(seen, func(key string, _ time.Time) bool { _, there := v.items[key]; return !there })
	for key, was := range p.Told {
		if _, there := v.items[key]; there && wants(c, s, key) {
			continue
		}
		switch {
		case !wants(c, s, key): // the configuration has changed
			d.forget = append(d.forget, key)
		case !v.over(key):
		case !c.WantsTopic(config.TopicRecovered):
			d.forget = append(d.forget, key)
		default:
			topic, token := tokenOf(key)
			if waiting[token] { // both are told together
				continue
			}
			mixed := token != "" && slices.ContainsFunc(config.Topics, func(other string) bool { _, wrong := v.items[other+"/t/"+token]; return wrong })
			d.news = append(d.news, change{ChangeRecovered, item{key: key, topic: topic, kind: was.Kind, token: token, rank: was.Rank, since: was.Since}, &was, mixed})
		}
	}
	d.news = append(d.news, happenedNews(c, s, v, p)...)
	slices.SortFunc(d.news, func(a, b change) int {
		return cmp.Or(cmp.Compare(order(a.how), order(b.how)), cmp.Compare(a.rank, b.rank), cmp.Compare(a.kind, b.kind), compareBool(a.mixed, b.mixed), cmp.Compare(a.key, b.key))
	})
	return d
}

// tokenOf returns the topic of a key and its token; empty if it is not about a token.
func tokenOf(key string) (topic, token string) {
	topic, rest, _ := strings.Cut(key, "/")
	if name, of := strings.CutPrefix(rest, "t/"); of {
		token = name
	}
	return topic, token
}

// isCritical reports whether a rank is that of something critical.
func isCritical(rank int) bool { return rank < warningRank }

func order(how string) int {
	return slices.Index([]string{ChangeNew, ChangeOther, ChangeHappened, ChangeStill, ChangeRecovered}, how)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// happenedNews returns what happened and is not told by a state: while a trouble of the same topic lasts or was told, the
// trouble and its end are told.
func happenedNews(c config.Receiver, s scope, v view, p *page) (news []change) {
	for _, h := range p.Happened {
		key := h.Topic + "/t/" + h.Token
		_, wrong := v.items[key]
		_, wasTold := p.Told[key]
		if h.Token != "" && (wrong || wasTold) {
			continue
		}
		rank := warningRank
		if h.Severity == status.Critical {
			rank = 0
		}
		news = append(news, change{ChangeHappened, item{
			key: h.key(), topic: h.Topic, kind: string(h.Kind), token: h.Token,
			severity: h.Severity, rank: rank, since: h.At, trouble: status.Trouble{What: h.What},
		}, nil, false})
	}
	return news
}

// wantsHappened reports whether a receiver is told what happened.
func wantsHappened(c config.Receiver, h happened) bool {
	return c.WantsTopic(h.Topic) && (h.Token == "" && len(c.Tokens) == 0 || h.Token != "" && c.WantsToken(h.Token))
}

// tell notes in a page that a message tells the news.
func (p *page) tell(m *Message, news []change) {
	p.Outbox, p.Reached, p.Before = m, nil, make(map[string]*told, len(news))
	for _, n := range news {
		if n.how == ChangeHappened {
			continue
		}
		p.Before[n.key] = n.was
		if n.how == ChangeRecovered {
			delete(p.Told, n.key)
			continue
		}
		since := n.since
		if since.IsZero() {
			since = m.At
		}
		if n.was != nil && !n.was.Since.IsZero() {
			since = n.was.Since
		}
		p.Told[n.key] = told{Kind: n.kind, Rank: n.rank, Since: since, At: m.At}
	}
	p.Telling, p.Happened = p.Happened, nil
}

// taken notes in a page that the message in the outbox was taken.
func (p *page) taken(at time.Time) {
	p.Outbox, p.Reached, p.Before, p.Telling, p.GivenUp, p.QuietUntil, p.Delivered = nil, nil, nil, nil, nil, time.Time{}, at.UTC()
}

// untell takes back what the message in the outbox tells, because its receiver does not take it. It is not tried
// again before until, unless there is other news.
func (p *page) untell(until time.Time) {
	p.GivenUp = make(map[string]string, len(p.Before))
	for key, was := range p.Before {
		if now, there := p.Told[key]; there {
			p.GivenUp[key] = now.Kind
		} else {
			p.GivenUp[key] = ""
		}
		if was == nil {
			delete(p.Told, key)
		} else {
			p.Told[key] = *was
		}
	}
	for _, h := range p.Telling {
		p.GivenUp[h.key()] = string(h.Kind)
	}
	p.Happened = bounded(append(p.Telling, p.Happened...))
	p.Outbox, p.Reached, p.Before, p.Telling, p.QuietUntil = nil, nil, nil, nil, until
}

// quiet reports whether all the news was in a message that was given up, and it is too early to try again.
func (p *page) quiet(news []change, now time.Time) bool {
	return now.Before(p.QuietUntil) && !slices.ContainsFunc(news, func(n change) bool {
		kind, there := p.GivenUp[n.key]
		return !there || kind != n.kind && kind != ""
	})
}
