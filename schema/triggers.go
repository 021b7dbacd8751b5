package schema

import (
	"context"
	"fmt"

	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// FiringTrigger is a trigger or event trigger enabled ALWAYS or REPLICA: it
// fires in an apply worker and in the tool's sessions, so that it is disabled
// on the side that applies until that side takes clients.
type FiringTrigger struct {
	Schema, Table string // "" for an event trigger
	Name          string
	Mode          byte // 'A' always, 'R' replica
}

// String names the trigger as a person reads it.
func (t FiringTrigger) String() string {
	if t.Table == "" {
		return "event trigger " + Name(t.Name)
	}
	return "trigger " + Name(t.Name) + " on " + Name(t.Schema, t.Table)
}

// Disable is the statement that keeps the trigger from firing at all.
func (t FiringTrigger) Disable() string { return t.alter("DISABLE") }

// Restore is the statement that puts its mode back.
func (t FiringTrigger) Restore() string {
	if t.Mode == 'R' {
		return t.alter("ENABLE REPLICA")
	}
	return t.alter("ENABLE ALWAYS")
}

func (t FiringTrigger) alter(how string) string {
	if t.Table == "" {
		return fmt.Sprintf("ALTER EVENT TRIGGER %s %s", pg.Ident(t.Name), how)
	}
	return fmt.Sprintf("ALTER TABLE ONLY %s %s TRIGGER %s", pg.Ident(t.Schema, t.Table), how, pg.Ident(t.Name))
}

// FiringTriggers reads the triggers and event triggers enabled ALWAYS or
// REPLICA, ours and those of extensions' own tables left out. Those of a
// partitioned root come before those of its leaves, so that Restore in this
// order is right where ALTER TABLE on the root reaches the leaves.
func FiringTriggers(ctx context.Context, conn *pgx.Conn) ([]FiringTrigger, error) {
	version, err := serverVersion(ctx, conn)
	if err != nil {
		return nil, err
	}
	rows, err := conn.Query(ctx, query("firing", version))
	if err != nil {
		return nil, fmt.Errorf("read triggers enabled ALWAYS or REPLICA: %w", err)
	}
	triggers, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t FiringTrigger, err error) {
		var mode string
		err = row.Scan(&t.Schema, &t.Table, &t.Name, &mode)
		t.Mode = letter(mode)
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("read triggers enabled ALWAYS or REPLICA: %w", err)
	}
	return triggers, nil
}
