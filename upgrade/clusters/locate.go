package clusters

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// Place is one of several hosts that the runbook gives for old's primary.
type Place struct {
	Old     *pg.Server
	FromNew *pg.Server // how new's server reaches it; nil: only as all of them together
}

// places are the hosts of old.primary; nil where there is one. from_new goes
// with them, host by host, where it names as many.
func places(old, fromNew *pg.Server) ([]Place, error) {
	each, err := old.Each()
	if err != nil || len(each) < 2 {
		return nil, err
	}
	froms, err := fromNew.Each()
	if err != nil {
		return nil, err
	}
	all := make([]Place, len(each))
	for i, s := range each {
		all[i].Old = s.As(old.App)
		if len(froms) == len(each) {
			all[i].FromNew = froms[i].As(old.App)
		}
	}
	return all, nil
}

// Locate finds which of old's hosts is its primary now. A subscription is given
// that one alone: one that looked for the primary itself would follow a
// failover before anybody knows what the new primary lacks.
func (c *Clusters) Locate(ctx context.Context) error {
	if len(c.Places) == 0 {
		return nil
	}
	if c.located {
		if id, err := c.Ask(ctx, c.Old, "old"); err == nil && !id.InRecovery {
			return nil
		}
	}
	c.located = false
	found := make([]pg.Identity, len(c.Places))
	says := make([]string, len(c.Places))
	var g errgroup.Group
	for i, p := range c.Places {
		g.Go(func() error {
			id, err := c.Ask(ctx, p.Old, fmt.Sprintf("host %d of old", i+1))
			switch {
			case err != nil:
				says[i] = err.Error()
			case id.InRecovery:
				says[i] = p.Old.String() + " is a standby"
			default:
				found[i] = id
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	var primaries []int
	for i, id := range found {
		if id.Version != 0 && !slices.ContainsFunc(primaries, func(j int) bool { return found[j].SystemID == id.SystemID && found[j].Started.Equal(id.Started) }) {
			primaries = append(primaries, i)
		}
	}
	switch len(primaries) {
	case 1:
		p := c.Places[primaries[0]]
		c.Old, c.located = p.Old, true
		if p.FromNew != nil {
			c.OldFromNew = p.FromNew
		}
		return nil
	case 0:
		return &pg.Error{Doing: "find old's primary among the hosts of old.primary", Err: errors.New(strings.Join(says, "; ")), Hint: "start the primary, or promote a standby that is one of these hosts"}
	}
	var names []string
	for _, i := range primaries {
		names = append(names, fmt.Sprintf("%s on timeline %d", c.Places[i].Old, found[i].Timeline))
	}
	return &pg.Error{
		Doing: "find old's primary among the hosts of old.primary", Err: fmt.Errorf("several of them are primaries: %s", strings.Join(names, ", ")),
		Hint: "stop the one that must not serve",
	}
}

// Ask asks a server who it is, in a kept session of that name.
func (c *Clusters) Ask(ctx context.Context, s *pg.Server, name string) (pg.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, AnswerTimeout)
	defer cancel()
	var id pg.Identity
	apart := *s
	apart.Name = name
	err := c.Sessions.Do(ctx, &apart, func(conn *pgx.Conn) (err error) {
		id, err = pg.Identify(ctx, conn)
		return err
	})
	return id, err
}

// IsPrimary reports whether a standby of the runbook is old's primary itself,
// by another name: it was promoted.
func (c *Clusters) IsPrimary(ctx context.Context, s *pg.Server, name string) bool {
	id, err := c.Ask(ctx, s, name)
	if err != nil || id.InRecovery {
		return false
	}
	old, err := c.Ask(ctx, c.Old, "old")
	return err == nil && old.SystemID == id.SystemID && old.Started.Equal(id.Started)
}

// AnswerTimeout limits asking a standby that may be gone.
const AnswerTimeout = 3 * time.Second
