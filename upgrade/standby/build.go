package standby

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// aside moves a data directory that is not ours out of the way.
func (b *builder) aside() flow.Step {
	s := b.step("aside", "Move what is in the data directory of "+b.Name+" aside")
	s.Does = []flow.Effect{b.effect("mv", b.DataDir, b.DataDir+".before-"+b.o.Upgrade+"-$timestamp")}
	s.Done = b.unless(func(ctx context.Context) (bool, error) {
		// Asked here, so that a node in the way is reported although nothing is to
		// be moved.
		if err := b.refuse(ctx); err != nil {
			return false, err
		}
		empty, err := b.empty(ctx)
		if empty || err != nil {
			return empty, err
		}
		m, err := b.marked(ctx)
		return m.Phase != "", err
	})
	s.Do = func(ctx context.Context, t *flow.Turn) error {
		e := s.Does[0].Fill(map[string]string{"timestamp": time.Now().UTC().Format("20060102T150405Z")})
		if err := b.run(ctx, e, pg.Cmd{}); err != nil {
			return err
		}
		t.Note("what was in %s on %s is in %s now", b.DataDir, b.host().Name(), e.Run[2])
		return nil
	}
	return s
}

// copyName is how the base backup's connections call themselves; PostgreSQL
// cuts names at 63 bytes.
func (b *builder) copyName() string {
	name := "crossfade " + b.o.Upgrade + " copies " + b.Name
	return name[:min(len(name), 63)]
}

// clear empties a data directory that holds half a base backup of ours.
func (b *builder) clear() flow.Step {
	up, side := b.upstream()
	s := b.step("clear", "Clear what an interrupted base backup of "+b.Name+" left")
	s.Does = []flow.Effect{
		{On: side, SQL: "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = " + pg.Literal(b.copyName())},
		b.effect("find", b.DataDir, "-mindepth", "1", "-delete"),
	}
	s.Done = b.unless(func(ctx context.Context) (bool, error) {
		m, err := b.marked(ctx)
		if err != nil || m.Phase != copying {
			return true, err
		}
		empty, err := b.empty(ctx)
		return empty, err
	})
	s.Do = func(ctx context.Context, _ *flow.Turn) error {
		// A pg_basebackup whose parent was killed goes on: it must be gone first.
		ctx, cancel := context.WithTimeoutCause(ctx, b.o.patience(), fmt.Errorf("it did not end within %s", b.o.patience()))
		defer cancel()
		if err := execute(ctx, up, s.Does[0]); err != nil {
			return err
		}
		err := pg.Poll(ctx, 100*time.Millisecond, "the interrupted base backup of "+b.Name+" to end", func(ctx context.Context) (gone bool, err error) {
			err = with(ctx, up, func(conn *pgx.Conn) error {
				return conn.QueryRow(ctx, `SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = $1)`, b.copyName()).Scan(&gone)
			})
			return gone, err
		})
		if err != nil {
			return err
		}
		// It may be clearing up itself still, so that find misses what is gone.
		return pg.Poll(ctx, 200*time.Millisecond, b.DataDir+" to be empty", func(ctx context.Context) (bool, error) {
			err := b.run(ctx, s.Does[1], pg.Cmd{})
			empty, eerr := b.empty(ctx)
			if eerr == nil && !empty && ctx.Err() != nil {
				return false, err
			}
			return empty, eerr
		})
	}
	return s
}

// reserve makes the slot, so that the upstream keeps what the node will need.
func (b *builder) reserve() flow.Step {
	up, side := b.upstream()
	s := b.step("slot", fmt.Sprintf("Reserve the slot %s on %s", b.slot(), side))
	s.Does = []flow.Effect{
		b.writes(b.markFile()),
		{On: side, SQL: fmt.Sprintf("SELECT pg_create_physical_replication_slot(%s, true)", pg.Literal(b.slot()))},
	}
	s.Done = b.unless(func(ctx context.Context) (bool, error) {
		there, err := b.slotState(ctx)
		return there, err
	})
	s.Do = func(ctx context.Context, _ *flow.Turn) error {
		m, err := b.marked(ctx)
		if err != nil {
			return err
		}
		// Before the slot, so that a crash in between leaves no slot unclaimed.
		m.Slot = true
		if err := b.marks(ctx, m); err != nil {
			return err
		}
		return execute(ctx, up, s.Does[1])
	}
	return s
}

// slotState is whether the node's slot is there and fit for it.
func (b *builder) slotState(ctx context.Context) (bool, error) {
	up, side := b.upstream()
	var kind, status, by string
	err := with(ctx, up, func(conn *pgx.Conn) error {
		err := conn.QueryRow(ctx, `
			SELECT s.slot_type, coalesce(s.wal_status, ''), coalesce(a.application_name, '')
			FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
			WHERE s.slot_name = $1`, b.slot()).Scan(&kind, &status, &by)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	switch {
	case err != nil:
		return false, b.errorf("look for its slot on %s: %w", side, err)
	case kind == "":
		return false, nil
	case kind != "physical":
		return false, b.errorf("slot %s on %s is a logical one; give slot: another name", b.slot(), side)
	case by != "" && by != b.Name && by != b.copyName():
		return false, b.errorf("slot %s on %s is in use by %q; give slot: another name", b.slot(), side, by)
	case status == "lost":
		return false, b.errorf("slot %s on %s has lost WAL that the node needs: SELECT pg_drop_replication_slot(%s) there, then run again", b.slot(), side, pg.Literal(b.slot()))
	}
	return true, nil
}

// copy makes the base backup and verifies it.
func (b *builder) copy() flow.Step {
	up, side := b.upstream()
	title := fmt.Sprintf("Copy %s to %s", side, b.Name)
	if len(b.beside) > 0 {
		title += ", while it is copied to " + strings.Join(b.beside, ", ") + ", too"
	}
	s := b.step("copy", title)
	backup := []string{b.program("pg_basebackup"), "-D", b.DataDir, "-d", up.Conninfo("application_name=" + b.copyName()), "-X", "stream", "-S", b.slot(), "-c", "fast", "-w"}
	if share := b.o.Limit / int64(len(b.beside)+1); share > 0 && share < maxRate {
		backup = append(backup, "-r", strconv.FormatInt(max(share, minRate)>>10, 10))
	}
	s.Does = []flow.Effect{
		b.effect("mkdir", "-p", b.DataDir),
		b.effect("chmod", "700", b.DataDir),
		b.writes(b.markFile()),
		b.effect(backup...),
		b.effect(b.program("pg_verifybackup"), "-q", b.DataDir),
		b.writes(b.markFile()),
	}
	s.Done = b.unless(func(ctx context.Context) (bool, error) {
		m, err := b.marked(ctx)
		return m.Phase == copied, err
	})
	s.Do = func(ctx context.Context, t *flow.Turn) error {
		if err := b.refuse(ctx); err != nil {
			return err
		}
		if err := b.sound(ctx); err != nil {
			return err
		}
		m, err := b.marked(ctx)
		if err != nil {
			return err
		}
		for _, e := range s.Does[:2] {
			if err := b.run(ctx, e, pg.Cmd{}); err != nil {
				return err
			}
		}
		if empty, err := b.empty(ctx); !empty || err != nil {
			return errors.Join(err, b.errorf("%s on %s is not empty", b.DataDir, b.host().Name()))
		}
		m.Phase = copying
		if m.Inode, err = b.inode(ctx); err != nil {
			return err
		}
		if err := b.marks(ctx, m); err != nil {
			return err
		}
		if err := b.backup(ctx, t, s.Does[3]); err != nil {
			return err
		}
		if err := b.run(ctx, s.Does[4], pg.Cmd{}); err != nil {
			return err
		}
		m.Phase = copied
		return b.marks(ctx, m)
	}
	return s
}

// sound finds what would make the copy useless, before hours are spent on it.
func (b *builder) sound(ctx context.Context) error {
	version, err := pg.ProgramVersion(ctx, b.program("pg_basebackup"))
	if _, local := b.host().(pg.Local); local && err == nil && version/10000 != b.o.Version/10000 && b.o.Version > 0 {
		return b.errorf("%s is of PostgreSQL %d, the new cluster of %d: give bin: of that major", b.program("pg_basebackup"), version/10000, b.o.Version/10000)
	}
	if b.Config != "" {
		if !b.test(ctx, "-f", b.configFile()) {
			return b.errorf("there is no %s on %s", b.configFile(), b.host().Name())
		}
		return nil
	}
	up, side := b.upstream()
	var outside, named bool
	err = with(ctx, up, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `
			SELECT NOT starts_with(current_setting('config_file'), current_setting('data_directory') || '/'),
			       EXISTS (SELECT FROM pg_file_settings WHERE name IN ('data_directory', 'hba_file', 'ident_file'))`).Scan(&outside, &named)
	})
	switch {
	case err != nil:
		return b.errorf("ask %s for its configuration files: %w", side, err)
	case outside:
		return b.errorf("%s has its configuration outside of the data directory, and a base backup does not bring it: give config: of the standby", side)
	case named:
		return b.errorf("the configuration of %s names its own data_directory, hba_file or ident_file, which a copy would use, too: give config: of the standby", side)
	}
	return nil
}

// backup runs pg_basebackup and tells how far it is.
func (b *builder) backup(ctx context.Context, t *flow.Turn, e flow.Effect) error {
	up, _ := b.upstream()
	watching, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Progress is for people: a copy does not fail because nobody could look.
		_ = with(watching, up, func(conn *pgx.Conn) error { return b.progress(watching, conn, t) })
	}()
	err := b.run(ctx, e, pg.Cmd{Env: up.Env()})
	stop()
	<-done
	return err
}

func (b *builder) progress(ctx context.Context, conn *pgx.Conn, t *flow.Turn) error {
	var total int64
	if err := conn.QueryRow(ctx, `SELECT sum(pg_database_size(oid))::bigint FROM pg_database`).Scan(&total); err != nil {
		return err
	}
	return pg.Poll(ctx, time.Second, "the base backup", func(ctx context.Context) (bool, error) {
		var sent int64
		var phase string
		err := conn.QueryRow(ctx, `
			SELECT coalesce(max(p.backup_streamed), 0), coalesce(max(p.phase), '') FROM pg_stat_progress_basebackup p
			JOIN pg_stat_activity a USING (pid) WHERE a.application_name = $1`, b.copyName()).Scan(&sent, &phase)
		if err == nil && phase != "" {
			t.Progress(sent, max(total, sent), "bytes", b.Name+": "+phase)
		}
		return false, err
	})
}

// signal is the file that makes a server a standby.
const signal = "/standby.signal"

// configure writes who the node is and what it follows. A delay comes last: a
// server receives nothing before it has applied what lies in pg_wal, and with
// the delay it would wait so long for the commits that came with its backup.
func (b *builder) configure() flow.Step {
	var told []string
	for _, s := range b.settings("", 0) {
		if s.Name != "primary_conninfo" {
			told = append(told, s.Name+" = "+quoteSetting(s.Value))
		}
	}
	up, side := b.upstream()
	s := b.step("configure", fmt.Sprintf("Configure %s to follow %s (%s): %s", b.Name, side, up.Address(), strings.Join(told, ", ")))
	s.Does = []flow.Effect{b.writes(b.DataDir + autoConf), b.effect("touch", b.DataDir+signal)}
	s.Done = b.unless(func(ctx context.Context) (bool, error) {
		m, err := b.marked(ctx)
		if err != nil || m.Phase != copied {
			return false, err
		}
		has, want, err := b.autoConf(ctx, 0)
		return bytes.Equal(has, want) && b.test(ctx, "-e", b.DataDir+signal), err
	})
	s.Do = func(ctx context.Context, _ *flow.Turn) error {
		if err := b.refuse(ctx); err != nil {
			return err
		}
		_, want, err := b.autoConf(ctx, 0)
		if err != nil {
			return err
		}
		if err := b.run(ctx, s.Does[0], pg.Cmd{Stdin: bytes.NewReader(want)}); err != nil {
			return err
		}
		return b.run(ctx, s.Does[1], pg.Cmd{})
	}
	return s
}
