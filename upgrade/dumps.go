package upgrade

import (
	"context"
	"fmt"

	"crossfade/schema"
	"crossfade/upgrade/flow"
)

// dumped is the schema of one database, as new's pg_dump reads it.
type dumped struct {
	entries  []schema.Entry
	commands []flow.Effect
}

// dump reads the schema of a database of old, or takes what dumpAhead has read.
func (u *Upgrade) dump(ctx context.Context, s *survey, database string) (dumped, error) {
	u.mu.Lock()
	ahead := u.ahead[database]
	delete(u.ahead, database) // a later plan is to see what has changed since
	u.mu.Unlock()
	if ahead != nil {
		select {
		case got := <-ahead:
			return got.dumped, got.err
		case <-ctx.Done():
			return dumped{}, context.Cause(ctx)
		}
	}
	return u.dumpNow(ctx, s, database)
}

func (u *Upgrade) dumpNow(ctx context.Context, s *survey, database string) (d dumped, err error) {
	program, err := u.program("pg_dump", s.new.Identity.Major())
	if err != nil {
		return d, err
	}
	if d.entries, d.commands, err = schema.Dump(ctx, u.old.With(database), program); err != nil {
		return d, fmt.Errorf("dump the schema of database %s: %w", database, err)
	}
	return d, nil
}

// dumping is a dump that is being made, or its error.
type dumping struct {
	dumped
	err error
}

// dumpAhead begins to read the schemas of all databases, one after the other,
// while other things are looked at. The function that it returns ends it, and
// must be called.
func (u *Upgrade) dumpAhead(ctx context.Context, s *survey) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	results := map[string]chan dumping{}
	for _, db := range s.databases {
		results[db.name] = make(chan dumping, 1)
	}
	go func() {
		defer close(done)
		for _, db := range s.databases {
			d, err := u.dumpNow(ctx, s, db.name)
			results[db.name] <- dumping{d, err}
		}
	}()
	u.mu.Lock()
	u.ahead = map[string]<-chan dumping{}
	for name, c := range results {
		u.ahead[name] = c
	}
	u.mu.Unlock()
	return func() {
		cancel()
		<-done
		u.mu.Lock()
		u.ahead = nil
		u.mu.Unlock()
	}
}
