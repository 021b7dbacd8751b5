package trust

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"unicode/utf8"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/runbook"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// madeLink is what was written down of a link when it was made, and what stands
// in its subscription.
type madeLink struct {
	point       pg.LSN // where the copy of its tables began
	publication uint32
	tables      []uint32
	conninfo    string
	names       map[uint32]runbook.TableName // by OID on old; nil: not written down
}

// LinkMark is the value of link/<name> in crossfade.ledger: written when a
// set's slot is made.
type LinkMark struct {
	Point       pg.LSN   `json:"point"`
	Publication uint32   `json:"publication"`
	Tables      []uint32 `json:"tables"`
	// Names are those of the tables when they were published, by their OID on old.
	Names map[uint32]storedName `json:"names,omitempty"`
}

// storedName is a TableName in JSON: in a database without an encoding it may be
// no UTF-8, which JSON cannot hold.
type storedName runbook.TableName

type storedBytes struct{ SchemaBytes, NameBytes []byte }

func (n storedName) MarshalJSON() ([]byte, error) {
	if !utf8.ValidString(n.Schema) || !utf8.ValidString(n.Name) {
		return json.Marshal(storedBytes{[]byte(n.Schema), []byte(n.Name)})
	}
	return json.Marshal(runbook.TableName(n))
}

func (n *storedName) UnmarshalJSON(b []byte) error {
	var raw storedBytes
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	if raw.NameBytes != nil {
		*n = storedName{string(raw.SchemaBytes), string(raw.NameBytes)}
		return nil
	}
	return json.Unmarshal(b, (*runbook.TableName)(n))
}

// ReadPublished reads what is published now, by link, of one database of old.
func ReadPublished(ctx context.Context, conn *pgx.Conn, links []link.Link) (map[string]LinkMark, error) {
	rows, err := conn.Query(ctx, `
		SELECT p.pubname::text, p.oid, coalesce((SELECT array_agg(r.oid) FROM pg_publication_rel r WHERE r.prpubid = p.oid), '{}'),
		  coalesce(t.oids, '{}'), coalesce(t.schemas, '{}'), coalesce(t.names, '{}')
		FROM pg_publication p, LATERAL (
		  SELECT array_agg(c.oid ORDER BY c.oid) AS oids, array_agg(n.nspname::text ORDER BY c.oid) AS schemas, array_agg(c.relname::text ORDER BY c.oid) AS names
		  FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		  WHERE r.prpubid = p.oid AND n.nspname <> 'crossfade') t
		WHERE p.pubname = ANY ($1)`, linkNames(links))
	if err != nil {
		return nil, fmt.Errorf("read the publications: %w", err)
	}
	all := map[string]LinkMark{}
	var name string
	var oids []uint32
	var schemas, names []string
	var m LinkMark
	_, err = pgx.ForEachRow(rows, []any{&name, &m.Publication, &m.Tables, &oids, &schemas, &names}, func() error {
		one := LinkMark{Publication: m.Publication, Tables: slices.Clone(m.Tables), Names: map[uint32]storedName{}}
		for i, oid := range oids {
			one.Names[oid] = storedName{schemas[i], names[i]}
		}
		all[name] = one
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the publications: %w", err)
	}
	return all, nil
}

// MarkEffects write down the publications that the slots of links begin with.
func MarkEffects(db string, links []link.Link) []flow.Effect {
	does := make([]flow.Effect, len(links))
	for i, l := range links {
		does[i] = flow.SQL("new", db, "INSERT INTO crossfade.ledger (key, value) VALUES ("+pg.Literal("link/"+l.Name)+", $mark) ON CONFLICT (key) DO UPDATE SET value = excluded.value")
	}
	return does
}

// MarkLinks writes down the publications and the point that the slots of links begin
// with.
func (tr *Trust) MarkLinks(ctx context.Context, db *survey.Database, links []link.Link, marks map[string]LinkMark, point pg.LSN) error {
	for i, e := range MarkEffects(db.Name, links) {
		m := marks[links[i].Name]
		m.Point = point
		b, err := json.Marshal(m)
		if err != nil {
			return err
		}
		if err := tr.c.Do(ctx, e.Fill(map[string]string{"mark": pg.Literal(string(b))})); err != nil {
			return err
		}
	}
	return nil
}

func (tr *Trust) readLinks(ctx context.Context, db *survey.Database) (map[string]madeLink, error) {
	made := map[string]madeLink{}
	err := tr.c.In(ctx, "new", db.Name, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `
			SELECT l.name, s.subconninfo, k.value::text
			FROM unnest($1::text[]) l(name)
			LEFT JOIN pg_subscription s ON s.subname = l.name AND s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
			LEFT JOIN crossfade.ledger k ON k.key = 'link/' || l.name`, linkNames(db.Links))
		if err != nil {
			return err
		}
		var name string
		var conninfo, value *string
		_, err = pgx.ForEachRow(rows, []any{&name, &conninfo, &value}, func() error {
			m := madeLink{}
			if conninfo != nil {
				m.conninfo = *conninfo
			}
			if value != nil {
				var mark LinkMark
				if err := json.Unmarshal([]byte(*value), &mark); err != nil {
					return fmt.Errorf("crossfade.ledger, link/%s: %w", name, err)
				}
				m.point, m.publication, m.tables = mark.Point, mark.Publication, mark.Tables
				m.names = map[uint32]runbook.TableName{}
				for oid, n := range mark.Names {
					m.names[oid] = runbook.TableName(n)
				}
			}
			made[name] = m
			return nil
		})
		return err
	})
	if pg.Missing(err) { // not made yet
		return made, nil
	}
	if err != nil {
		return nil, &pg.Error{Doing: "read how the links were made", On: tr.c.New.String() + ", database " + db.Name, Err: err}
	}
	return made, nil
}

func linkNames(links []link.Link) []string {
	names := make([]string, len(links))
	for i, l := range links {
		names[i] = l.Name
	}
	return names
}
