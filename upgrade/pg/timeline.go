package pg

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
)

// Timelines reads, in a replication session, where each ancestor of a timeline
// ended. Timeline 1 has none.
func Timelines(ctx context.Context, rep *pgconn.PgConn, timeline int32) (map[int32]LSN, error) {
	ends := map[int32]LSN{}
	if timeline <= 1 {
		return ends, nil
	}
	history, err := pglogrepl.TimelineHistory(ctx, rep, timeline)
	if err != nil {
		return nil, fmt.Errorf("read the history of timeline %d: %w", timeline, err)
	}
	for line := range strings.Lines(string(history.Content)) {
		words := strings.Fields(line)
		if len(words) < 2 || strings.HasPrefix(words[0], "#") {
			continue
		}
		t, err := strconv.ParseInt(words[0], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("history of timeline %d: %q: %w", timeline, line, err)
		}
		end, err := pglogrepl.ParseLSN(words[1])
		if err != nil {
			return nil, fmt.Errorf("history of timeline %d: %q: %w", timeline, line, err)
		}
		ends[int32(t)] = end
	}
	return ends, nil
}
