package standby

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// seen is what answers at the node's address.
type seen struct {
	answers bool
	pg.Identity
	data     string             // data_directory; "" where it may not be read
	settings map[string]inForce // what the node is asked for, as it has it
}

// absent is whether nobody listens there; anything else could be somebody.
func absent(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT)
}

// see asks who answers at the node's address.
func (b *builder) see(ctx context.Context) (seen, error) {
	var s seen
	conn, err := b.Server.Connect(ctx)
	if err != nil {
		if absent(err) {
			return s, nil
		}
		return s, b.errorf("somebody is at its address, but does not say who: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	s.answers = true
	if s.Identity, err = pg.Identify(ctx, conn); err != nil {
		return s, b.errorf("%w", err)
	}
	names := []string{"recovery_min_apply_delay", "primary_slot_name"}
	for _, set := range b.Settings {
		names = append(names, strings.ToLower(set.Name))
	}
	rows, err := conn.Query(ctx, `
		SELECT lower(name), setting, vartype, coalesce(unit, ''), pending_restart FROM pg_settings
		WHERE lower(name) = ANY($1) OR name = 'data_directory'`, names)
	if err != nil {
		return s, b.errorf("read its settings: %w", err)
	}
	s.settings = map[string]inForce{}
	var name string
	var f inForce
	_, err = pgx.ForEachRow(rows, []any{&name, &f.value, &f.kind, &f.unit, &f.pending}, func() error {
		if name == "data_directory" {
			s.data = f.value
			return nil
		}
		s.settings[name] = f
		return nil
	})
	if err != nil {
		return s, b.errorf("read its settings: %w", err)
	}
	return s, nil
}

// ours is whether who answers is a standby of the new cluster in the node's
// data directory; why says what else it is.
func (b *builder) ours(ctx context.Context, s seen) (ok bool, why string, err error) {
	id, err := b.identity(ctx)
	if err != nil {
		return false, "", err
	}
	role := "primary"
	if s.InRecovery {
		role = "standby"
	}
	switch {
	case s.SystemID != id.SystemID:
		return false, fmt.Sprintf("at %s runs a %s of PostgreSQL %d of another cluster (system identifier %s, that of %s is %s)",
			b.Server.Address(), role, s.Major(), s.SystemID, b.o.Primary.Name, id.SystemID), nil
	case !s.InRecovery:
		return false, fmt.Sprintf("at %s runs a primary of the new cluster, not a standby", b.Server.Address()), nil
	case s.data != "" && filepath.Clean(s.data) != filepath.Clean(b.DataDir):
		return false, fmt.Sprintf("at %s runs another standby of the new cluster, in %s, not in %s", b.Server.Address(), s.data, b.DataDir), nil
	}
	return true, "", nil
}

// differs says which settings the node has otherwise, with that delay; "" is none.
func (b *builder) differs(s seen, delay time.Duration) string {
	want := append([]Setting{
		{"recovery_min_apply_delay", strconv.FormatInt(delay.Milliseconds(), 10)},
		{"primary_slot_name", b.slot()},
	}, b.Settings...)
	var diff []string
	for _, w := range want {
		if f := s.settings[strings.ToLower(w.Name)]; !f.is(w.Value) {
			diff = append(diff, fmt.Sprintf("%s is %q, not %q", w.Name, f.value, w.Value))
		} else if f.pending {
			diff = append(diff, w.Name+" waits for a restart")
		}
	}
	return strings.Join(diff, ", ")
}

const streamsSQL = `
	SELECT r.state, coalesce(s.slot_name, '') FROM pg_stat_replication r
	LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid
	WHERE r.application_name = $1 ORDER BY r.state = 'streaming' AND s.slot_name = $2 DESC LIMIT 1`

// good is whether the node is all that it should be: a standby of the new
// cluster in its data directory, with its settings, streaming from its
// upstream under its name through its slot. why says what is missing.
func (b *builder) good(ctx context.Context) (ok bool, why string, err error) {
	return b.goodWith(ctx, b.Delay)
}

// goodWith is good with another delay than it should have in the end.
func (b *builder) goodWith(ctx context.Context, delay time.Duration) (ok bool, why string, err error) {
	s, err := b.see(ctx)
	if err != nil {
		if pg.SQLState(err) == cannotConnectNow {
			return false, "it is starting", nil
		}
		return false, "", err
	}
	if !s.answers {
		return false, "it does not run", nil
	}
	if ok, why, err = b.ours(ctx, s); !ok || err != nil {
		return false, why, err
	}
	if diff := b.differs(s, delay); diff != "" {
		return false, diff, nil
	}
	up, name := b.upstream()
	var state, slot string
	err = with(ctx, up, func(conn *pgx.Conn) error {
		err := conn.QueryRow(ctx, streamsSQL, b.Name, b.slot()).Scan(&state, &slot)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	switch {
	case err != nil && b.Upstream != nil && absent(err):
		return false, name + " does not run", nil
	case err != nil:
		return false, "", b.errorf("ask %s whether it streams: %w", name, err)
	case state == "":
		return false, name + " has no connection that calls itself " + b.Name, nil
	case state != "streaming" || slot != b.slot():
		return false, fmt.Sprintf("on %s its connection is in state %s, its slot %q", name, state, slot), nil
	}
	return true, "", nil
}

const cannotConnectNow = "57P03"

// refuse is an error where something is in the way that must not be touched:
// a server at the node's address or in its data directory that is not the node.
// The node itself, running with a mark, is not in the way.
func (b *builder) refuse(ctx context.Context) error {
	s, err := b.see(ctx)
	if err != nil && pg.SQLState(err) != cannotConnectNow {
		return err
	}
	if s.answers {
		ok, why, err := b.ours(ctx, s)
		if err != nil {
			return err
		}
		if !ok {
			return b.errorf("%s: nothing was done to it; give the standby another port, or stop that server", why)
		}
		m, err := b.marked(ctx)
		if err != nil {
			return err
		}
		if m.Phase == "" {
			_, why, err := b.good(ctx)
			if err != nil {
				return err
			}
			return b.errorf("it is a standby of the new cluster that crossfade has not built, and not as the runbook wants it (%s): change it there, or stop it to have it built anew", why)
		}
		return nil
	}
	running, err := b.runs(ctx)
	if err != nil {
		return err
	}
	if running {
		m, err := b.marked(ctx)
		if err != nil || m.Phase != "" {
			return err
		}
		return b.errorf("a server runs in %s on %s, and does not answer at %s: nothing was done to it; stop it, or give the standby another data:",
			b.DataDir, b.host().Name(), b.Server.Address())
	}
	return nil
}
