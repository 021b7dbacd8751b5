package survey

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"crossfade/cutover"
	"crossfade/upgrade/clusters"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/runbook"
	"crossfade/upgrade/standby"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// Evict ends what is left of earlier runs on both sides. This run has the hold,
// so that each of them is gone, frozen or cut off.
func (s *Survey) Evict(ctx context.Context) error {
	for _, side := range []cutover.Side{s.Old, s.New} {
		if s.Silent(side.Name) != nil {
			continue
		}
		err := s.c.Sessions.Do(ctx, side.Server, func(conn *pgx.Conn) error {
			return cutover.Evict(ctx, conn, side.Name, clusters.App(s.c.Book), s.c.Mark(), s.decisions)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// OldSynchronous is synchronous_standby_names of old, "" where it does not
// answer or new gets no standbys.
func (s *Survey) OldSynchronous(ctx context.Context) (string, error) {
	if len(s.c.Book.New[0].Standbys) == 0 || s.OldErr != nil {
		return "", nil
	}
	var now string
	err := s.c.On(ctx, "old", func(conn *pgx.Conn) error {
		var err error
		now, _, err = standby.Synchronous(ctx, conn)
		return err
	})
	if err != nil {
		return "", &pg.Error{Doing: "read synchronous_standby_names", On: s.c.Old.String(), Err: err}
	}
	return now, nil
}

// Identify fills a side, or says why it cannot be asked.
func Identify(ctx context.Context, c *clusters.Clusters, name string) (cutover.Side, error) {
	s := cutover.Side{Name: name, Server: c.Side(name)}
	err := c.Sessions.Do(ctx, s.Server, func(conn *pgx.Conn) error {
		var err error
		s.Identity, err = pg.Identify(ctx, conn)
		s.Version = s.Identity.Version
		return err
	})
	if err != nil {
		return s, &pg.Error{Doing: "ask " + name + " who it is", On: s.Server.String(), Err: err}
	}
	return s, nil
}

// Take reads both servers as far as they answer. full reads the inventories too.
func Take(ctx context.Context, c *clusters.Clusters, full bool) (*Survey, error) {
	s := &Survey{c: c}
	lost := c.Locate(ctx)
	var g errgroup.Group
	g.Go(func() error {
		if s.Old, s.OldErr = (cutover.Side{Name: "old", Server: c.Old}), lost; lost == nil {
			s.Old, s.OldErr = Identify(ctx, c, "old")
		}
		return nil
	})
	g.Go(func() error { s.New, s.NewErr = Identify(ctx, c, "new"); return nil })
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if s.OldErr != nil && s.NewErr != nil {
		return s, errors.Join(s.OldErr, s.NewErr)
	}
	if err := s.readDatabases(ctx); err != nil {
		return s, err
	}
	if err := s.readDecisions(ctx); err != nil {
		return s, err
	}
	s.Phase = s.decide()
	if !full {
		return s, nil
	}
	return s, s.ReadTables(ctx)
}

// readDatabases lists the databases of the upgrade.
func (s *Survey) readDatabases(ctx context.Context) error {
	books := slices.Clone(s.c.Book.Databases)
	oids, encodings := map[string]uint32{}, map[string]string{}
	from := s.Old
	if s.OldErr != nil {
		from = s.New
	}
	err := s.c.Sessions.Do(ctx, from.Server, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `SELECT oid, datname::text, pg_encoding_to_char(encoding)::text, datistemplate, NOT datallowconn OR datconnlimit = -2 FROM pg_database ORDER BY datname`)
		if err != nil {
			return err
		}
		var oid uint32
		var name, encoding string
		var template, shut bool
		_, err = pgx.ForEachRow(rows, []any{&oid, &name, &encoding, &template, &shut}, func() error {
			oids[name], encodings[name] = oid, encoding
			if s.c.Book.Databases == nil && !template && !shut {
				books = append(books, runbook.DefaultDatabase(name))
			}
			return nil
		})
		return err
	})
	if err != nil {
		return &pg.Error{Doing: "list the databases", On: from.Server.String(), Err: err}
	}
	for _, b := range books {
		if _, there := oids[b.Name]; !there && s.OldErr == nil {
			return &runbook.Error{Problems: []runbook.Problem{s.c.Book.Problem(b.At, fmt.Sprintf("database %s does not exist on old; name one that does", b.Name))}}
		}
		s.Databases = append(s.Databases, &Database{Name: b.Name, OID: oids[b.Name], Encoding: encodings[b.Name], Book: b})
	}
	if len(s.Databases) == 0 {
		return exit.Errorf(exit.Findings, "create one, or correct old.primary", "%s has no database to upgrade", from.Server)
	}
	s.Home = s.Databases[0].Name
	names := make([]string, len(s.Databases))
	for i, db := range s.Databases {
		names[i] = db.Name
	}
	s.c.Knows(names)
	return nil
}

// readDecisions reads crossfade.upgrade and the fence on both sides.
func (s *Survey) readDecisions(ctx context.Context) error {
	all := map[int]cutover.Decision{}
	s.rows = map[string]bool{}
	rank := map[cutover.State]int{cutover.Open: 4, cutover.Void: 3, cutover.Closed: 2, cutover.Armed: 1, cutover.Ready: 1}
	for _, name := range []string{"new", "old"} {
		if name == "old" && s.OldErr != nil || name == "new" && s.NewErr != nil {
			continue
		}
		up := false
		err := s.c.In(ctx, name, s.Home, func(conn *pgx.Conn) error {
			ds, err := s.c.Part.ReadDecisions(ctx, conn)
			if err != nil {
				return err
			}
			s.rows[name] = len(ds) > 0
			for _, d := range ds {
				had, ok := all[d.Attempt]
				d.Done, had.Done = d.Done || had.Done, d.Done || had.Done // written on the open side alone
				if ok {
					all[d.Attempt] = had
				}
				if !ok || rank[d.State] > rank[had.State] || rank[d.State] == rank[had.State] && name == "old" {
					all[d.Attempt] = d
				}
			}
			if up, err = s.c.Part.Up(ctx, conn); err != nil {
				return err
			}
			return only(ctx, s.c, conn)
		})
		switch {
		case pg.SQLState(err) == "3D000": // not there yet
		case pg.SQLState(err) == "55000": // the database takes no connections
			err = &pg.Error{Doing: "read the state of the upgrade", On: s.c.Side(name).String() + ", database " + s.Home, Err: err, Hint: "let it take connections again: ALTER DATABASE " + pg.Ident(s.Home) + " ALLOW_CONNECTIONS true"}
			if name == "old" {
				s.OldErr = err
			} else {
				s.NewErr = err
			}
			if s.OldErr != nil && s.NewErr != nil {
				return errors.Join(s.OldErr, s.NewErr)
			}
		case errors.As(err, new(*exit.Error)):
			return err
		case err != nil:
			return &pg.Error{Doing: "read the state of the upgrade", On: s.c.Side(name).String(), Err: err}
		case name == "old":
			s.FenceOld = &up
		default:
			s.FenceNew = &up
		}
	}
	s.decisions = slices.SortedFunc(maps.Values(all), func(a, b cutover.Decision) int { return cmp.Compare(a.Attempt, b.Attempt) })
	for _, d := range s.decisions {
		if d.Upgrade != s.c.Book.Upgrade {
			return exit.Errorf(exit.Findings, "finish or abort that one first, with its own runbook", "upgrade %q has begun on this cluster; one upgrade at a time", d.Upgrade)
		}
	}
	return nil
}
