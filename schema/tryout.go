package schema

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// Rejected is a statement that a server refused.
type Rejected struct {
	Entry Entry
	SQL   string // the one statement of the entry
	Err   error
	// Because is another rejected entry whose object the statement names; nil
	// where the refusal stands for itself.
	Because *Rejected
}

// Lacks are roles of one cluster that another has not. True: a superuser,
// because some objects may belong to no other.
type Lacks map[string]bool

// LackingRoles compares the roles of two clusters.
func LackingRoles(ctx context.Context, old, new *pgx.Conn) (Lacks, error) {
	read := func(conn *pgx.Conn) (Lacks, error) {
		rows, err := conn.Query(ctx, `SELECT rolname::text, rolsuper FROM pg_roles`)
		if err != nil {
			return nil, fmt.Errorf("read the roles: %w", err)
		}
		roles := Lacks{}
		var name string
		var super bool
		_, err = pgx.ForEachRow(rows, []any{&name, &super}, func() error { roles[name] = super; return nil })
		return roles, err
	}
	lacks, err := read(old)
	if err != nil {
		return nil, err
	}
	have, err := read(new)
	for name := range have {
		delete(lacks, name)
	}
	return lacks, err
}

// CreateScratch is the statement that makes an empty database name on the
// cluster to, with the encoding and locale of one of from, for whoever executes it.
func CreateScratch(from, to *Shared, database, name string) (string, error) {
	d := find(from.Databases, func(d Database) bool { return d.Name == database })
	if d == nil {
		return "", fmt.Errorf("database %s is not there any more", Name(database))
	}
	like := *d
	like.Name, like.Owner, like.Limit, like.Template = name, to.User, -1, false
	return to.create(like), nil
}

// TryOut executes entries in the database of conn (a Session), which is to be
// thrown away, and tells what is refused instead of stopping there. Where the
// cluster lacks a role that an entry names, it exists for that transaction
// alone: what it owns and may do is taken from it before the commit, so that
// nobody ever sees it, whatever becomes of this process. seen is given how many
// entries are done. The error is one of the connection, or of ctx.
func TryOut(ctx context.Context, conn *pgx.Conn, entries []Entry, roles Lacks, seen func(int)) ([]Rejected, error) {
	t := &tryout{conn: conn, roles: roles}
	for done := 0; done < len(entries); {
		n := chunkOf(entries[done:])
		if err := t.chunk(ctx, entries[done:done+n]); err != nil {
			return t.rejected, err
		}
		done += n
		if seen != nil {
			seen(done)
		}
	}
	t.causes()
	return t.rejected, nil
}

type tryout struct {
	conn     *pgx.Conn
	roles    Lacks
	rejected []Rejected
}

// chunkOf is how many entries share a transaction: what is said about an object
// stays with it, because a policy for roles that are gone is gone too.
func chunkOf(entries []Entry) int {
	n := min(smallEntries, len(entries))
	for n < len(entries) && slices.Contains([]string{"COMMENT", "SECURITY LABEL", "ACL"}, entries[n].Type) && entries[n-1].Type != "ACL" {
		n++
	}
	return n
}

func (t *tryout) chunk(ctx context.Context, chunk []Entry) error {
	roles := t.named(chunk)
	begin := []string{"BEGIN"}
	for _, r := range roles {
		create := "CREATE ROLE " + pg.Ident(r)
		if t.roles[r] {
			create += " SUPERUSER"
		}
		begin = append(begin, create)
	}
	if err := t.exec(ctx, strings.Join(begin, "; ")); err != nil {
		return fmt.Errorf("begin a part of the restore: %w", err)
	}
	if whole, err := t.together(ctx, chunk); err != nil {
		return err
	} else if !whole {
		for _, e := range chunk {
			if err := t.one(ctx, e); err != nil {
				return err
			}
		}
	}
	// One role after the other: DROP OWNED of several stumbles over default
	// privileges of one for another.
	var end []string
	for _, r := range roles {
		name := pg.Ident(r)
		end = append(end, "REASSIGN OWNED BY "+name+" TO CURRENT_USER", "DROP OWNED BY "+name)
	}
	for _, r := range roles {
		end = append(end, "DROP ROLE "+pg.Ident(r))
	}
	end = append(end, "COMMIT")
	if err := t.exec(ctx, strings.Join(end, "; ")); err != nil {
		return fmt.Errorf("end the part of the restore with %s: %w", chunk[0].Object(), err)
	}
	return nil
}

// named are the lacking roles that stand in entries, by name.
func (t *tryout) named(entries []Entry) []string {
	if len(t.roles) == 0 {
		return nil
	}
	found := map[string]bool{}
	for _, e := range entries {
		lex(e.SQL, func(k token) bool {
			if k.kind == word || k.kind == quoted {
				if _, lacks := t.roles[k.text]; lacks {
					found[k.text] = true
				}
			}
			return true
		})
	}
	var roles []string
	for r := range found {
		roles = append(roles, r)
	}
	slices.Sort(roles)
	return roles
}

// together executes a chunk as one message: most are refused nothing. false: of
// some something is, and nothing was done.
func (t *tryout) together(ctx context.Context, chunk []Entry) (bool, error) {
	var b strings.Builder
	for _, e := range chunk {
		sql, err := t.text(ctx, e)
		if err != nil {
			return false, err
		}
		b.WriteString(sql + "\n;\n")
	}
	err := t.safely(ctx, b.String())
	if err == nil || pg.SQLState(err) == "" {
		return err == nil, err
	}
	return false, nil
}

// text is what is sent for an entry.
func (t *tryout) text(ctx context.Context, e Entry) (string, error) {
	vars, err := e.lent(ctx, t.conn)
	if err != nil {
		return "", err
	}
	if len(e.Vars) > 0 {
		vars = maps.Clone(e.Vars)
	}
	for name := range vars {
		if _, secret := e.Vars[name]; secret {
			vars[name] = "'scratch'" // none is needed here
		}
	}
	if len(vars) == 0 {
		return e.SQL, nil
	}
	return flow.Effect{SQL: e.SQL}.Fill(vars).SQL, nil
}

// one executes an entry, as one message; where that is refused, statement by
// statement, so that it is known which, and the others are there for what follows.
func (t *tryout) one(ctx context.Context, e Entry) error {
	whole, err := t.text(ctx, e)
	if err != nil {
		return err
	}
	err = t.safely(ctx, whole)
	if err == nil || pg.SQLState(err) == "" {
		return err
	}
	first := pg.SQLState(err)
	parts := statements(whole)
	if len(parts) < 2 {
		t.rejected = append(t.rejected, Rejected{Entry: e, SQL: whole, Err: err})
		return nil
	}
	before := len(t.rejected)
	for _, s := range parts {
		sql := whole[s.start:s.end]
		perr := t.safely(ctx, sql)
		if perr != nil && pg.SQLState(perr) == "" {
			return perr
		}
		if perr != nil {
			t.rejected = append(t.rejected, Rejected{Entry: e, SQL: sql, Err: perr})
			if s.is(0, "CREATE") {
				break // what follows is about what is not there now
			}
		}
	}
	// A body in SQL standard form has semicolons of its own: cut there, its
	// parts are refused for other reasons than the whole.
	if got := t.rejected[before:]; len(got) == 0 || pg.SQLState(got[0].Err) != first {
		t.rejected = append(t.rejected[:before], Rejected{Entry: e, SQL: whole, Err: err})
	}
	return nil
}

// safely executes sql, and leaves the transaction as it was where it is
// refused. An error without SQLSTATE is no refusal: the connection or the
// context ended.
func (t *tryout) safely(ctx context.Context, sql string) error {
	if err := t.exec(ctx, "SAVEPOINT tryout"); err != nil {
		return over(err)
	}
	err := t.exec(ctx, sql)
	if err == nil {
		return over(t.exec(ctx, "RELEASE SAVEPOINT tryout"))
	}
	if ctx.Err() != nil || t.conn.IsClosed() {
		return over(err)
	}
	if rerr := t.exec(ctx, "ROLLBACK TO SAVEPOINT tryout; RELEASE SAVEPOINT tryout"); rerr != nil {
		return over(joinErr(err, rerr))
	}
	return err
}

// over is err as one that nothing can follow, whatever SQLSTATE it has.
func over(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%v", err)
}

func (t *tryout) exec(ctx context.Context, sql string) error {
	err := pg.Exec(ctx, t.conn, sql)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w (%s)", context.Cause(ctx), err)
	}
	return err
}

// causes finds, for what was refused because something does not exist, whether
// that was refused before it.
func (t *tryout) causes() {
	for i := range t.rejected {
		r := &t.rejected[i]
		switch pg.SQLState(r.Err) {
		case undefinedTable, undefinedSchema, undefinedFunction, undefinedColumn, undefinedObject:
		default:
			continue
		}
		names := map[string]bool{}
		lex(r.SQL, func(k token) bool {
			if k.kind == word || k.kind == quoted || k.kind == str {
				for part := range strings.SplitSeq(strings.Trim(k.text, "'"), ".") {
					names[part] = true
				}
			}
			return true
		})
		for j := range i {
			c := &t.rejected[j]
			name, _, _ := strings.Cut(c.Entry.Name, "(")
			if c.Because == nil && c.Entry.Object() != r.Entry.Object() && names[name] && strings.HasPrefix(strings.TrimSpace(c.SQL), "CREATE") {
				r.Because = c
				break
			}
		}
	}
}
