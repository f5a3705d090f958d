package app

import (
	"context"
	"fmt"

	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

// checkUnfinished looks for tokens that were removed from the configuration during a rotation: their new
// secret would never be delivered. If the service token is configured under another name, that is an error.
// Rotating it under that name would revoke the secret of the unfinished rotation, and finishing that one
// later would deliver a dead secret.
func (a *App) checkUnfinished(c *config.Config) error {
	records, err := rotation.Unfinished(context.Background(), a.state.ledger)
	if err != nil || len(records) == 0 { // nearly always
		return err
	}
	names := make(map[string]string, len(c.Tokens)) // by service token, or by how one is created
	configured := make(map[string]rotation.Token, len(c.Tokens))
	for _, t := range c.Tokens {
		configured[t.Name] = identityOf(t)
		for _, id := range []string{t.ID, t.Partner} {
			if id != "" {
				names[id] = t.Name
			}
		}
		if t.Create != nil {
			names[t.Account+" "+configured[t.Name].Origin()] = t.Name
		}
	}
	for _, r := range records {
		if t, ok := configured[r.Token]; ok {
			if !t.MatchesRotation(r) {
				return fmt.Errorf("tokens.%s: the ledger holds an unfinished rotation (%s) of service token %s under this name: "+
					"set its id back until that rotation is done, or use another name. If that service token was deleted, set it back and end the rotation "+
					"with rotatord resolve %s --drop", r.Token, r.Step, r.Work.TokenID, r.Token)
			}
			continue
		}
		ids := []string{r.Work.TokenID}
		if r.Origin != "" { // the configuration may name it by its first ID
			ids = append(ids, r.TokenID, r.Origin, r.Account+" "+r.Origin)
		}
		for _, by := range ids {
			name, ok := names[by]
			if !ok {
				continue
			}
			return fmt.Errorf("tokens.%s: the ledger holds an unfinished rotation (%s) of this service token under the name %s: "+
				"name it %s again until that rotation is done", name, r.Step, r.Token, r.Token)
		}
		a.tell(r.Token, event.Orphan{TokenID: r.Work.TokenID, Account: r.Account, Step: string(r.Step), RotationID: r.Work.RotationID})
	}
	return nil
}

// accountsOf returns the names of the accounts that have tokens in a configuration.
func accountsOf(c *config.Config) map[string]bool {
	used := make(map[string]bool)
	for _, t := range c.Tokens {
		used[t.Account] = true
	}
	return used
}
