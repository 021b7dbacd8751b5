package survey

import (
	"context"

	"crossfade/upgrade/clusters"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/rights"

	"github.com/jackc/pgx/v5"
)

// Runs is what of a database runs functions of ordinary roles, read once, on the
// side that serves.
func (s *Survey) Runs(ctx context.Context, db *Database) (*rights.Map, error) {
	if db.runs != nil {
		return db.runs, nil
	}
	side, version := s.c.Old, s.Old.Version
	if s.Serving().Name == "new" {
		side, version = s.c.New, s.New.Version
	}
	m, err := RunsOn(ctx, s.c, side, version, db)
	if err == nil {
		db.runs = m
	}
	return m, err
}

// RunsOn is what of a database of one side runs functions of ordinary roles, read
// anew.
func RunsOn(ctx context.Context, c *clusters.Clusters, side *pg.Server, version int, db *Database) (m *rights.Map, err error) {
	err = c.Sessions.Do(ctx, side.With(db.Name), func(conn *pgx.Conn) (err error) {
		m, err = rights.Read(ctx, conn, version)
		return err
	})
	if err != nil {
		return nil, &pg.Error{Doing: "read the functions of " + db.Name, On: side.String(), Err: err}
	}
	return m, nil
}

// RunsAnywhere is runs with what the side that applies has beside it: the owner of a
// table can put an index on it there as well.
func (s *Survey) RunsAnywhere(ctx context.Context, db *Database) (*rights.Map, error) {
	m, err := s.Runs(ctx, db)
	if err != nil {
		return nil, err
	}
	other, err := RunsOn(ctx, s.c, s.Applying().Server, s.Applying().Version, db)
	if err != nil {
		return nil, err
	}
	return m.And(other), nil
}
