package upgrade

import (
	"context"

	"crossfade/cutover"
	"crossfade/upgrade/clusters"

	"github.com/jackc/pgx/v5"
)

// evict ends what is left of earlier runs on both sides. This run has the hold,
// so that each of them is gone, frozen or cut off.
func (u *Upgrade) evict(ctx context.Context, s *survey) error {
	for _, side := range []cutover.Side{s.old, s.new} {
		if s.silent(side.Name) != nil {
			continue
		}
		err := u.c.Sessions.Do(ctx, side.Server, func(conn *pgx.Conn) error {
			return cutover.Evict(ctx, conn, side.Name, clusters.App(u.rb), u.c.Mark(), s.decisions)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
