package admin

import (
	"fmt"
	"net/http"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/event"
)

// This file decides who may use which command. The kernel says who is at the other end of a connection: its user, its
// group and its further groups. What the system's files say of the user counts too.

// refusal returns why the peer may not use a verb; nil if it may.
func (s *server) refusal(p peer, verb string) error {
	allow := s.allowed()
	if allow == nil || allows(allow, p, verb) {
		return nil
	}
	groups := p.groupNames()
	entry := fmt.Sprintf("{user: %s, verbs: [%s]}", p.account(), verb)
	if len(groups) > 0 {
		entry += fmt.Sprintf(", or one for a group of %s", strings.Join(groups, ", "))
	}
	return failure{http.StatusForbidden, fmt.Sprintf("%s may not use %s: admin.allow has no entry that lets them. Ask for %s, and a reload", p.name(), verb, entry)}
}

// allows reports whether an entry lets the peer use a verb. root may use all, unless an entry is for root.
func allows(allow []config.Allow, p peer, verb string) bool {
	isNamed := func(a config.Allow) bool { return a.User != "" && p.isUser(a.User) }
	if p.uid == 0 && !slices.ContainsFunc(allow, isNamed) {
		return true
	}
	return slices.ContainsFunc(allow, func(a config.Allow) bool {
		if !slices.Contains(a.Verbs, verb) && !slices.Contains(a.Verbs, "all") {
			return false
		}
		return isNamed(a) || a.Group != "" && p.isIn(a.Group)
	})
}

// account returns the user as an entry names it.
func (p peer) account() string {
	if name := p.user(); name != "" {
		return name
	}
	return strconv.FormatUint(uint64(p.uid), 10)
}

// isUser reports whether the peer is the user of that name or number.
func (p peer) isUser(name string) bool {
	return name == strconv.FormatUint(uint64(p.uid), 10) || name == p.user()
}

// isIn reports whether the peer is in the group of that name or number.
func (p peer) isIn(group string) bool {
	id := group
	if g, err := user.LookupGroup(group); err == nil {
		id = g.Gid
	}
	return slices.Contains(p.groupIDs(), id)
}

// groupIDs returns the groups of the process, as the kernel names them, and those of its user, as the system has them.
func (p peer) groupIDs() []string {
	all := []string{strconv.FormatUint(uint64(p.gid), 10)}
	for _, id := range p.groups {
		all = append(all, strconv.FormatUint(uint64(id), 10))
	}
	if u, err := user.LookupId(strconv.FormatUint(uint64(p.uid), 10)); err == nil {
		if more, err := u.GroupIds(); err == nil {
			all = append(all, more...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (p peer) groupNames() (names []string) {
	for _, id := range p.groupIDs() {
		if g, err := user.LookupGroupId(id); err == nil {
			names = append(names, g.Name)
		}
	}
	return names
}

// reading returns a handler of a command that only reads. A refusal is told once in a while for each user: such
// commands can be repeated every second.
func (s *server) reading(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if s.allowed() == nil {
			serve(w, r)
			return
		}
		who, err := peerFrom(r.Context())
		if err == nil {
			if err = s.refusal(who, event.OperatorRead.Name()); err != nil && s.isNews(who.uid, time.Now()) {
				s.tell("", who.actor(event.OperatorRead), event.Command{Verb: event.OperatorRead, Outcome: "refused", Err: err.Error()})
			}
		}
		if err != nil {
			serveError(w, err)
			return
		}
		serve(w, r)
	}
}

const (
	refusalEvery = time.Minute
	maxRefused   = 100 // users whose last refusal is remembered
)

// isNews reports whether a refusal of a user was not told in the last minute, and notes that it is told now.
func (s *server) isNews(uid uint32, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last, ok := s.refused[uid]; ok && now.Sub(last) < refusalEvery {
		return false
	}
	if s.refused == nil || len(s.refused) >= maxRefused {
		s.refused = make(map[uint32]time.Time)
	}
	s.refused[uid] = now
	return true
}
