package schema

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// lockWait is how long pg_dump waits for a table that somebody holds
// exclusively, before it gives up rather than have everybody queue behind it.
const lockWait = "--lock-wait-timeout=10s"

// DumpEffects are the programs that Dump runs, all on this machine: pg_dump
// writes an archive to its standard output, which pg_restore reads twice to
// list it and once to print it. program is pg_dump of new's major, pg_restore
// lies beside it. (A database in SQL_ASCII is dumped with --encoding=SQL_ASCII;
// Dump returns what it really ran.)
func DumpEffects(from *pg.Server, program string) []flow.Effect {
	restore := filepath.Join(filepath.Dir(program), "pg_restore")
	runs := [][]string{
		{
			program, "--format=custom", "--schema-only", "--no-publications", "--no-subscriptions",
			"--exclude-schema=" + Own, lockWait, "--encoding=UTF8", "--dbname=" + from.Conninfo(),
		},
		{restore, "--list"},
		{restore, "--list", "--section=pre-data"},
		{restore, "--file=-"},
	}
	effects := make([]flow.Effect, len(runs))
	for i, run := range runs {
		effects[i] = flow.Effect{On: "local", Run: run}
	}
	return effects
}

// Dump reads the schema of from's database with program, pg_dump of new's
// major, as entries in the order they are restored in. Publications,
// subscriptions and the tool's own objects are left out, and what is apart (nil:
// nothing). It also returns what was run. Nothing is written on the server.
func Dump(ctx context.Context, from *pg.Server, program string, apart *Apart) ([]Entry, []flow.Effect, error) {
	effects := DumpEffects(from, program)
	effects[0].Run = apart.excluding(effects[0].Run)
	facts, err := readDumpFacts(ctx, from)
	if err != nil {
		return nil, effects, err
	}
	if facts.encoding == "SQL_ASCII" {
		// Such a database is not converted, and its bytes need not be UTF-8.
		for i, a := range effects[0].Run {
			if strings.HasPrefix(a, "--encoding=") {
				effects[0].Run[i] = "--encoding=SQL_ASCII"
			}
		}
	}
	var archive []byte
	out := make([]string, len(effects))
	for i, e := range effects {
		b, err := run(ctx, from, e.Run, archive)
		for range dumpsAgain {
			if i > 0 || err == nil || ctx.Err() != nil {
				break
			}
			b, err = run(ctx, from, e.Run, archive)
		}
		if err != nil {
			return nil, effects, fmt.Errorf("dump the schema of database %s: %w", from.Database(), err)
		}
		if i == 0 {
			archive = b
			continue
		}
		out[i] = string(b)
	}
	entries, err := assemble(out[1], out[2], out[3])
	if err != nil {
		return nil, effects, fmt.Errorf("dump the schema of database %s: %w", from.Database(), err)
	}
	return apart.without(facts.complete(entries)), effects, nil
}

// dumpsAgain is how often pg_dump is run again when it fails. The server's functions
// that it calls for definitions do not see its snapshot: an index that DROP INDEX or
// REINDEX CONCURRENTLY drops meanwhile is an error in them, and pg_dump does not tell
// that from others.
const dumpsAgain = 2

func run(ctx context.Context, s *pg.Server, argv []string, stdin []byte) ([]byte, error) {
	ctx, stop := s.Attended(ctx)
	defer stop()
	cmd := s.Command(ctx, argv[0], argv[1:]...)
	for _, e := range slices.Backward(cmd.Env) {
		if options, ok := strings.CutPrefix(e, "PGOPTIONS="); ok {
			// What is dumped is read again by lex, and by a session that has
			// these settings. pg_dump quotes by the key words of its own major,
			// but the server writes lists of arguments, definitions and
			// expressions, by its own: there it quotes all, as for pg_upgrade.
			cmd.Env = append(cmd.Env, "PGOPTIONS="+options+" -c standard_conforming_strings=on -c quote_all_identifiers=on")
			break
		}
	}
	// What pg_restore prints is read by cut: no translation.
	cmd.Env = append(cmd.Env, "LC_ALL=C")
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout = bytes.NewReader(stdin), &out
	if err := pg.Run(ctx, cmd); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// assemble makes entries of what pg_restore printed: the list, the list of the
// pre-data section, the SQL. Pure.
func assemble(list, preData, sql string) ([]Entry, error) {
	order, err := parseList(list)
	if err != nil {
		return nil, err
	}
	first, err := parseList(preData)
	if err != nil {
		return nil, err
	}
	pre := make(map[int]bool, len(first))
	for _, l := range first {
		pre[l.id] = true
	}
	head, entries, err := cut(sql, order)
	if err != nil {
		return nil, err
	}
	settle(head, entries)
	stage(entries, order, pre)
	entries = slices.DeleteFunc(entries, func(e Entry) bool { return e.SQL == "" || e.ours() })
	return entries, nil
}

// ours says whether an entry is the tool's own object outside of its schema.
func (e Entry) ours() bool {
	switch e.Type {
	case "TRIGGER":
		return slices.ContainsFunc(statements(e.SQL), func(s statement) bool {
			n := s.after("TRIGGER")
			return n > 0 && n < len(s.tokens) && strings.HasPrefix(s.tokens[n].text, FenceTrigger)
		})
	case "EVENT TRIGGER":
		return strings.HasPrefix(e.Name, DDLTrigger)
	case "COMMENT", "SECURITY LABEL":
		return strings.HasPrefix(e.Name, "EVENT TRIGGER "+DDLTrigger) || strings.HasPrefix(e.Name, "TRIGGER "+FenceTrigger)
	}
	return false
}

// dumpFacts is what a dump of the schema alone does not say.
type dumpFacts struct {
	encoding string
	public   bool // the schema public exists
	views    []MaterializedView
	proven   []proven
	borrowed []Borrowed
}

// proven is a check constraint that a table has from one that is not validated,
// and that holds for its own rows all the same.
type proven struct{ schema, table, name string }

func readDumpFacts(ctx context.Context, from *pg.Server) (f dumpFacts, err error) {
	conn, err := from.Connect(ctx)
	if err != nil {
		return f, err
	}
	defer func() {
		if cerr := conn.Close(ctx); err == nil {
			err = cerr
		}
	}()
	const facts = `
		SELECT pg_encoding_to_char(encoding), EXISTS (SELECT FROM pg_namespace WHERE nspname = 'public')
		FROM pg_database WHERE datname = current_database()`
	if err = conn.QueryRow(ctx, facts).Scan(&f.encoding, &f.public); err != nil {
		return f, &pg.Error{Doing: "read the encoding of database " + from.Database(), On: from.String(), Err: err}
	}
	if f.views, err = ReadMaterializedViews(ctx, conn); err != nil {
		return f, err
	}
	// pg_dump gives a constraint that was added NOT VALID to its table, and with
	// that to all that inherit it.
	const inherited = `
		SELECT n.nspname, c.relname, k.conname
		FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE k.contype = 'c' AND k.convalidated AND k.coninhcount > 0 AND c.relpersistence <> 't'
		  AND EXISTS (SELECT FROM pg_inherits i JOIN pg_constraint p ON p.conrelid = i.inhparent
		              WHERE i.inhrelid = c.oid AND p.contype = 'c' AND p.conname = k.conname AND NOT p.convalidated)
		ORDER BY c.oid, k.conname`
	rows, err := conn.Query(ctx, inherited)
	if err == nil {
		f.proven, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (p proven, err error) {
			err = row.Scan(&p.schema, &p.table, &p.name)
			return p, err
		})
	}
	if err == nil {
		f.borrowed, err = readBorrowed(ctx, conn)
	}
	if err != nil {
		return f, &pg.Error{Doing: "read what a dump of database " + from.Database() + " leaves out", On: from.String(), Err: err}
	}
	return f, nil
}

// complete adds what pg_dump leaves out: a database without schema public
// would get one from its template, and materialized views stay empty.
func (f dumpFacts) complete(entries []Entry) []Entry {
	if !f.public {
		entries = slices.Insert(entries, 0, Entry{
			Type: "SCHEMA", Name: "public", Stage: Before, SQL: "DROP SCHEMA IF EXISTS public RESTRICT;",
		})
	}
	for i := range entries {
		entries[i].borrow(f.borrowed)
	}
	for _, p := range f.proven {
		table := pg.Ident(p.schema, p.table)
		entries = append(entries, Entry{
			Section: PostData, Type: "VALID CONSTRAINT", Schema: p.schema, Name: p.table + " " + p.name, Table: table, Stage: Foreign,
			SQL: "ALTER TABLE " + table + " VALIDATE CONSTRAINT " + pg.Ident(p.name) + ";",
		})
	}
	for _, v := range f.views {
		if v.Populated {
			entries = append(entries, Entry{
				Section: PostData, Type: "MATERIALIZED VIEW DATA", Schema: v.Schema, Name: v.Name,
				Table: v.SQL(), Stage: Refresh, SQL: v.Refresh() + ";",
			})
		}
	}
	return entries
}
