package pg_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"crossfade/scenarios/lab"
	"crossfade/scenarios/lab/labtest"
	"crossfade/upgrade/pg"
)

// TestSilent: what a server works at is waited for as long as it takes; a server that
// is frozen is not, whether it is asked something or sent something, or a program
// talks to it.
func TestSilent(t *testing.T) {
	t.Cleanup(pg.SetBeat(100*time.Millisecond, 5*time.Second))
	l := labtest.T(t)
	c := l.Start(lab.Options{Name: "wacken", Major: 15, Settings: map[string]string{"log_connections": "off"}})
	s, err := pg.Parse("old", c.Conninfo("postgres"), "")
	l.Must(err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	asking, err := s.Connect(ctx)
	l.Must(err)
	sending, err := s.Connect(ctx)
	l.Must(err)
	before := c.Log()
	l.Must(pg.Exec(ctx, asking, "SELECT pg_sleep(2)"))
	if after := c.Log(); after != before {
		t.Errorf("the server's log has now\n%s", after)
	}

	l.Must(pg.Exec(ctx, sending, "CREATE TEMP TABLE t (a text)"))
	l.Must(c.Freeze(ctx))
	silent := func(doing string, err error) {
		t.Helper()
		var why *pg.ErrSilent
		var network net.Error
		if !errors.As(err, &why) || !errors.As(err, &network) || !network.Timeout() {
			t.Errorf("%s: %v", doing, err)
		}
	}
	silent("ask", pg.Exec(ctx, asking, "SELECT 1"))
	_, err = sending.PgConn().CopyFrom(ctx, endless{}, "COPY t FROM STDIN")
	silent("send", err)
	attended, stop := s.Attended(ctx)
	defer stop()
	<-attended.Done()
	silent("attend", context.Cause(attended))

	l.Must(c.Thaw(ctx))
	again, err := s.Connect(ctx)
	l.Must(err)
	l.Must(pg.Exec(ctx, again, "SELECT 1"))
	pg.Leave(again)
}

// endless is a row after the other.
type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
		if i%100 == 99 {
			b[i] = '\n'
		}
	}
	return len(b), nil
}
