package upgrade

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// place is one of several hosts that the runbook gives for old's primary.
type place struct {
	old     *pg.Server
	fromNew *pg.Server // how new's server reaches it; nil: only as all of them together
}

// places are the hosts of old.primary; nil where there is one. from_new goes
// with them, host by host, where it names as many.
func places(old, fromNew *pg.Server) ([]place, error) {
	each, err := old.Each()
	if err != nil || len(each) < 2 {
		return nil, err
	}
	froms, err := fromNew.Each()
	if err != nil {
		return nil, err
	}
	all := make([]place, len(each))
	for i, s := range each {
		all[i].old = s.As(old.App)
		if len(froms) == len(each) {
			all[i].fromNew = froms[i].As(old.App)
		}
	}
	return all, nil
}

// locate finds which of old's hosts is its primary now. A subscription is given
// that one alone: one that looked for the primary itself would follow a
// failover before anybody knows what the new primary lacks.
func (u *Upgrade) locate(ctx context.Context) error {
	if len(u.places) == 0 {
		return nil
	}
	if u.located {
		if id, err := u.ask(ctx, u.old, "old"); err == nil && !id.InRecovery {
			return nil
		}
	}
	u.located = false
	found := make([]pg.Identity, len(u.places))
	says := make([]string, len(u.places))
	var g errgroup.Group
	for i, p := range u.places {
		g.Go(func() error {
			id, err := u.ask(ctx, p.old, fmt.Sprintf("host %d of old", i+1))
			switch {
			case err != nil:
				says[i] = err.Error()
			case id.InRecovery:
				says[i] = p.old.String() + " is a standby"
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
		p := u.places[primaries[0]]
		u.old, u.located = p.old, true
		if p.fromNew != nil {
			u.oldFromNew = p.fromNew
		}
		return nil
	case 0:
		return &pg.Error{Doing: "find old's primary among the hosts of old.primary", Err: errors.New(strings.Join(says, "; ")), Hint: "start the primary, or promote a standby that is one of these hosts"}
	}
	var names []string
	for _, i := range primaries {
		names = append(names, fmt.Sprintf("%s on timeline %d", u.places[i].old, found[i].Timeline))
	}
	return &pg.Error{
		Doing: "find old's primary among the hosts of old.primary", Err: fmt.Errorf("several of them are primaries: %s", strings.Join(names, ", ")),
		Hint: "stop the one that must not serve",
	}
}

// ask asks a server who it is, in a kept session of that name.
func (u *Upgrade) ask(ctx context.Context, s *pg.Server, name string) (pg.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, relayTimeout)
	defer cancel()
	var id pg.Identity
	apart := *s
	apart.Name = name
	err := u.sessions.Do(ctx, &apart, func(conn *pgx.Conn) (err error) {
		id, err = pg.Identify(ctx, conn)
		return err
	})
	return id, err
}

// isPrimary reports whether a standby of the runbook is old's primary itself,
// by another name: it was promoted.
func (u *Upgrade) isPrimary(ctx context.Context, s *pg.Server, name string) bool {
	id, err := u.ask(ctx, s, name)
	if err != nil || id.InRecovery {
		return false
	}
	old, err := u.ask(ctx, u.old, "old")
	return err == nil && old.SystemID == id.SystemID && old.Started.Equal(id.Started)
}
