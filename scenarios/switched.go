package scenarios

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"crossfade/scenarios/lab"
)

// switcher is somebody's script that makes a primary synchronous while a standby
// of its list streams, and asynchronous while none does. It knows nothing of
// the upgrade.
type switcher struct {
	stage  *Stage
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu       sync.Mutex
	switches map[string][2]int // to asynchronous, to synchronous, by side
}

const switchEvery = 100 * time.Millisecond

// switching starts the script on both primaries; Stop ends it.
func switching(ctx context.Context, st *Stage) *switcher {
	s := &switcher{stage: st, switches: map[string][2]int{}}
	ctx, s.cancel = context.WithCancel(ctx)
	for _, side := range []string{sideOld, sideNew} {
		s.done.Go(func() {
			tick := time.NewTicker(switchEvery)
			defer tick.Stop()
			for ctx.Err() == nil {
				s.look(ctx, side, st.side(side))
				select {
				case <-ctx.Done():
				case <-tick.C:
				}
			}
		})
	}
	return s
}

// look does what is right now; a server that does not answer is looked at again.
func (s *switcher) look(ctx context.Context, side string, c *lab.Cluster) {
	list := s.stage.Scenario.Old.Synchronous
	names := slices.DeleteFunc(words.FindAllString(list, -1), func(w string) bool { return w == "FIRST" || w == "ANY" })
	rows, err := c.Query(ctx, "", "SELECT current_setting('synchronous_standby_names'), EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming' AND application_name IN ('"+strings.Join(names, "', '")+"'))")
	if err != nil {
		return
	}
	want, to := "", 0
	if rows[0][1] == "t" {
		want, to = list, 1
	}
	if rows[0][0] == want {
		return
	}
	if err := c.Exec(ctx, "", "ALTER SYSTEM SET synchronous_standby_names = '"+want+"'", "SELECT pg_reload_conf()"); err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.switches[side]
	n[to]++
	s.switches[side] = n
}

func (s *switcher) Stop() {
	s.cancel()
	s.done.Wait()
}

// says is how often the script has switched.
func (s *switcher) says() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var parts []string
	for _, side := range []string{sideOld, sideNew} {
		parts = append(parts, fmt.Sprintf("%s %d times to asynchronous and %d times to synchronous", side, s.switches[side][0], s.switches[side][1]))
	}
	return strings.Join(parts, ", ")
}
