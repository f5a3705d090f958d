package app

import "rotatord/internal/config"

// index finds the tokens of an account, and the sinks of a group, without a walk over all tokens. There can be as many
// accounts, directories and namespaces as tokens, and each of them is looked at again and again.
type index struct {
	of        *config.Config // it is made from
	byAccount map[string][]int
	byGroup   map[string][]sinkPlace
}

// sinkPlace says where a sink is in a configuration.
type sinkPlace struct{ token, sink int }

// indexed returns the configuration in force and its index, which is made once for each configuration.
func (a *App) indexed() (*config.Config, *index) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.index == nil || a.index.of != a.config {
		a.index = newIndex(a.config)
	}
	return a.config, a.index
}

func newIndex(c *config.Config) *index {
	x := &index{of: c, byAccount: make(map[string][]int), byGroup: make(map[string][]sinkPlace)}
	for i, t := range c.Tokens {
		x.byAccount[t.Account] = append(x.byAccount[t.Account], i)
		for n, s := range t.Sinks {
			group := s.Group()
			x.byGroup[group] = append(x.byGroup[group], sinkPlace{i, n})
		}
	}
	return x
}

// tokensIn returns the tokens of an account as the configuration in force has them, in the order of their names.
func (a *App) tokensIn(account string) func(yield func(config.Token) bool) {
	c, x := a.indexed()
	return func(yield func(config.Token) bool) {
		for _, i := range x.byAccount[account] {
			if !yield(c.Tokens[i]) {
				return
			}
		}
	}
}
