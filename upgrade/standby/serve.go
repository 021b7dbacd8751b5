package standby

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// pgCtl is pg_ctl for the node; pg_ctl hands the text after -o to a shell.
func (b *builder) pgCtl(act string, more ...string) []string {
	argv := append([]string{b.program("pg_ctl"), act, "-D", b.DataDir, "-w", "-t", "3600"}, more...)
	if b.Config != "" && act != "stop" {
		argv = append(argv, "-o", "-c config_file="+shellWord(b.configFile()))
	}
	return argv
}

func shellWord(s string) string {
	for _, c := range s {
		if !strings.ContainsRune("/._-+=:@%,", c) && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
		}
	}
	return s
}

func (b *builder) starts() []flow.Effect {
	if b.Start != nil {
		return []flow.Effect{b.effect(b.Start...)}
	}
	return []flow.Effect{b.effect(b.pgCtl("start", "-l", b.logFile())...)}
}

func (b *builder) stops() []flow.Effect {
	if b.Stop != nil {
		return []flow.Effect{b.effect(b.Stop...)}
	}
	return []flow.Effect{b.effect(b.pgCtl("stop", "-m", "fast")...)}
}

func (b *builder) restarts() []flow.Effect {
	switch {
	case b.Restart != nil:
		return []flow.Effect{b.effect(b.Restart...)}
	case b.Start != nil || b.Stop != nil:
		return append(b.stops(), b.starts()...)
	}
	return []flow.Effect{b.effect(b.pgCtl("restart", "-m", "fast", "-l", b.logFile())...)}
}

// restart lets a node that runs with other settings take those of its file.
func (b *builder) restart() flow.Step {
	s := b.step("restart", "Restart "+b.Name+" where its settings have changed")
	s.Does = b.restarts()
	s.Done = b.unless(func(ctx context.Context) (bool, error) {
		now, err := b.see(ctx)
		if err != nil && pg.SQLState(err) != cannotConnectNow {
			return false, err
		}
		return !now.answers || b.differs(now, 0) == "", nil
	})
	s.Do = func(ctx context.Context, _ *flow.Turn) error {
		if err := b.refuse(ctx); err != nil {
			return err
		}
		for _, e := range s.Does {
			if err := b.run(ctx, e, pg.Cmd{}); err != nil {
				return b.tail(ctx, err)
			}
		}
		return nil
	}
	return s
}

// start starts the node and waits until it takes connections.
func (b *builder) start() flow.Step {
	s := b.step("start", "Start "+b.Name)
	s.Does = b.starts()
	s.Done = b.unless(func(ctx context.Context) (bool, error) {
		now, err := b.see(ctx)
		if err != nil && pg.SQLState(err) != cannotConnectNow {
			return false, err
		}
		return now.answers, nil
	})
	s.Do = func(ctx context.Context, t *flow.Turn) error {
		if err := b.refuse(ctx); err != nil {
			return err
		}
		running, err := b.runs(ctx)
		if err != nil {
			return err
		}
		if !running {
			if err := b.run(ctx, s.Does[0], pg.Cmd{}); err != nil {
				return b.tail(ctx, err)
			}
		}
		return b.wait(ctx, t, b.Name+" to take connections", func(ctx context.Context) (bool, string, error) {
			now, err := b.see(ctx)
			if pg.SQLState(err) == cannotConnectNow {
				return false, "it is starting", nil
			}
			if err != nil || now.answers {
				return now.answers, "", err
			}
			running, err := b.runs(ctx)
			if err == nil && !running {
				err = b.tail(ctx, b.errorf("its server has ended; the start command was %s", strings.Join(s.Does[0].Run, " ")))
			}
			return false, "nobody listens at " + b.Server.Address(), err
		})
	}
	return s
}

// wait polls look until it is done; when nothing changes for the node's
// patience, the error says what was missing last.
func (b *builder) wait(ctx context.Context, t *flow.Turn, what string, look func(context.Context) (done bool, missing string, err error)) error {
	last, since := "", time.Now()
	return pg.Poll(ctx, 200*time.Millisecond, what, func(ctx context.Context) (bool, error) {
		done, missing, err := look(ctx)
		if done || err != nil {
			return done, err
		}
		if missing != last {
			last, since = missing, time.Now()
			t.Note("%s: %s", b.Name, missing)
		}
		if time.Since(since) > b.o.patience() {
			return false, b.errorf("timed out after %s, waiting for %s: %s", b.o.patience(), what, missing)
		}
		return false, nil
	})
}

// streaming waits until the upstream shows the node streaming and the node has
// what the primary had written by then.
func (b *builder) streaming() flow.Step {
	_, side := b.upstream()
	s := b.step("streaming", fmt.Sprintf("See %s streaming from %s", b.Name, side))
	s.Done = func(ctx context.Context) (bool, error) {
		ok, _, err := b.good(ctx)
		return ok, err
	}
	s.Do = func(ctx context.Context, t *flow.Turn) error {
		err := b.wait(ctx, t, b.Name+" to stream", func(ctx context.Context) (bool, string, error) { return b.goodWith(ctx, 0) })
		if err != nil {
			return b.tail(ctx, b.hint(err))
		}
		var target pg.LSN
		err = with(ctx, b.o.Primary, func(conn *pgx.Conn) error {
			return conn.QueryRow(ctx, `SELECT pg_current_wal_flush_lsn()`).Scan(&target)
		})
		if err != nil {
			return b.errorf("read where %s is: %w", b.o.Primary, err)
		}
		return with(ctx, b.Server, func(conn *pgx.Conn) error {
			return b.wait(ctx, t, fmt.Sprintf("%s to have %s", b.Name, target), func(ctx context.Context) (bool, string, error) {
				var at *pg.LSN
				if err := conn.QueryRow(ctx, "SELECT pg_last_wal_replay_lsn()").Scan(&at); err != nil || at == nil {
					return false, "it has applied nothing", err
				}
				return *at >= target, "it is at " + at.String(), nil
			})
		})
	}
	return s
}

// delay lets a node that streams apply later from now on.
func (b *builder) delay() flow.Step {
	s := b.step("delay", fmt.Sprintf("Let %s apply %s later from now on", b.Name, b.Delay))
	s.Does = []flow.Effect{b.writes(b.DataDir + autoConf), b.effect(b.program("pg_ctl"), "reload", "-D", b.DataDir)}
	s.Done = func(ctx context.Context) (bool, error) {
		ok, _, err := b.good(ctx)
		return ok, err
	}
	s.Do = func(ctx context.Context, t *flow.Turn) error {
		_, want, err := b.autoConf(ctx, b.Delay)
		if err != nil {
			return err
		}
		if err := b.run(ctx, s.Does[0], pg.Cmd{Stdin: bytes.NewReader(want)}); err != nil {
			return err
		}
		if err := b.run(ctx, s.Does[1], pg.Cmd{}); err != nil {
			return err
		}
		return b.wait(ctx, t, b.Name+" to apply later", b.good)
	}
	return s
}

// hint says what the most common reason is.
func (b *builder) hint(err error) error {
	up, side := b.upstream()
	if up.Secret() != "" {
		return err
	}
	return fmt.Errorf("%w (its log says why; the owner of %s needs a way in to %s as %s without being asked: pgpass, a certificate, pg_hba.conf for replication)",
		err, b.DataDir, side, up.User())
}

// stop stops a node that we built.
func (b *builder) stop() flow.Step {
	s := b.step("stop", "Stop "+b.Name)
	s.Does = b.stops()
	s.Done = func(ctx context.Context) (bool, error) {
		m, err := b.marked(ctx)
		if err != nil || m.Phase == "" {
			return true, err
		}
		running, err := b.runs(ctx)
		return !running, err
	}
	s.Do = func(ctx context.Context, t *flow.Turn) error {
		// The mark says that the directory is ours; what runs in it must be, too.
		now, err := b.see(ctx)
		if err != nil && pg.SQLState(err) != cannotConnectNow {
			return err
		}
		if now.answers {
			if ok, why, err := b.ours(ctx, now); err != nil || !ok {
				return errors.Join(err, b.errorf("not stopped: %s", why))
			}
		}
		if err := b.run(ctx, s.Does[0], pg.Cmd{}); err != nil {
			return err
		}
		return b.wait(ctx, t, b.Name+" to end", func(ctx context.Context) (bool, string, error) {
			running, err := b.runs(ctx)
			return !running, "it still runs", err
		})
	}
	return s
}

// drop drops the slot that we made on the upstream.
func (b *builder) drop() flow.Step {
	up, side := b.upstream()
	s := b.step("drop-slot", fmt.Sprintf("Drop the slot %s on %s", b.slot(), side))
	s.Does = []flow.Effect{{On: side, SQL: fmt.Sprintf("SELECT pg_drop_replication_slot(%s)", pg.Literal(b.slot()))}}
	there := func(ctx context.Context) (exists, active bool, err error) {
		err = with(ctx, up, func(conn *pgx.Conn) error {
			err := conn.QueryRow(ctx, `SELECT active FROM pg_replication_slots WHERE slot_name = $1`, b.slot()).Scan(&active)
			if exists = err == nil; errors.Is(err, pgx.ErrNoRows) {
				return nil
			}
			return err
		})
		if b.Upstream != nil && absent(err) {
			// A slot on a standby that is down goes with its data directory.
			return false, false, nil
		}
		return exists, active, err
	}
	s.Done = func(ctx context.Context) (bool, error) {
		m, err := b.marked(ctx)
		if err != nil || !m.Slot {
			return true, err
		}
		exists, _, err := there(ctx)
		return !exists, err
	}
	s.Do = func(ctx context.Context, t *flow.Turn) error {
		err := b.wait(ctx, t, fmt.Sprintf("the slot %s to be free", b.slot()), func(ctx context.Context) (bool, string, error) {
			_, active, err := there(ctx)
			return !active, "somebody still uses it", err
		})
		if err != nil {
			return err
		}
		return execute(ctx, up, s.Does[0])
	}
	return s
}

// forget removes the mark.
func (b *builder) forget() flow.Step {
	s := b.step("forget", "Leave "+b.Name+" to its owner")
	s.Does = []flow.Effect{b.effect("rm", "-f", b.markFile())}
	s.Done = func(ctx context.Context) (bool, error) { return !b.test(ctx, "-e", b.markFile()), ctx.Err() }
	s.Do = func(ctx context.Context, t *flow.Turn) error {
		empty, err := b.empty(ctx)
		if err != nil {
			return err
		}
		if !empty {
			t.Note("%s stays in %s on %s", b.Name, b.DataDir, b.host().Name())
		}
		return b.run(ctx, s.Does[0], pg.Cmd{})
	}
	return s
}
