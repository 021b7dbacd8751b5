package survey

import (
	"context"

	"crossfade/upgrade/link"

	"github.com/jackc/pgx/v5"
)

// Positions reads links of one database where their servers answer.
func (s *Survey) Positions(ctx context.Context, db string, links []link.Link) (map[string]*link.Position, error) {
	if len(links) == 0 {
		return nil, nil
	}
	var at map[string]*link.Position
	conns := map[string]*pgx.Conn{}
	read := func() error {
		var err error
		at, err = link.Positions(ctx, conns[links[0].From.Side], conns[links[0].To.Side], links)
		return err
	}
	with := func(side string, then func() error) func() error {
		if side == "old" && s.OldErr != nil || side == "new" && s.NewErr != nil {
			return then
		}
		return func() error {
			return s.c.In(ctx, side, db, func(conn *pgx.Conn) error {
				conns[side] = conn
				return then()
			})
		}
	}
	err := with("old", with("new", read))()
	return at, err
}
