package upgrade

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"crossfade/cutover"
	"crossfade/schema"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/ground"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"
	"crossfade/upgrade/runbook"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// doubts are why what new holds may not be what old holds, although no link
// lags: what somebody did by hand, and failovers.
type doubts struct {
	stranger string            // a side is another cluster: nothing can be done here
	links    map[string]string // by link: why its tables must be copied again
	verify   []string          // why rows must be compared again
	mend     []string          // what prepare puts right without either
	moved    []string          // sides that have failed over
}

// says is every doubt in words; "" is none.
func (d doubts) says() string {
	var all []string
	if d.stranger != "" {
		all = append(all, d.stranger)
	}
	all = append(all, d.moved...)
	for _, name := range slices.Sorted(maps.Keys(d.links)) {
		all = append(all, name+": "+d.links[name]+", so that its tables must be copied again")
	}
	for _, why := range d.verify {
		all = append(all, why+", so that rows must be compared again")
	}
	return strings.Join(append(all, d.mend...), "; ")
}

// hasMoved tells whether a side is still the server that it was: stranger, where
// it is another cluster, and moved, where a standby of it was promoted.
func hasMoved(side string, was cutover.Whom, now cutover.Side) (stranger, moved string) {
	id := now.Identity
	switch {
	case was.System == "" || id.SystemID == "":
	case was.System != id.SystemID:
		stranger = fmt.Sprintf("%s is another cluster (system identifier %s) than the one that this upgrade began with (%s): correct %s's primary in the runbook",
			now.Server, id.SystemID, was.System, side)
	case was.Timeline != id.Timeline:
		moved = fmt.Sprintf("%s has failed over: %s is on timeline %d, and what was made was made with timeline %d", side, now.Server, id.Timeline, was.Timeline)
	}
	return stranger, moved
}

// doubt looks for everything that makes new's rows doubtful. full: databases
// have been looked at.
func (u *Upgrade) doubt(ctx context.Context, s *survey.Survey) (doubts, error) {
	d := doubts{links: map[string]string{}}
	if s.OldErr != nil || s.NewErr != nil || s.Zero() == nil {
		return d, nil
	}
	wasOld, wasNew := s.Remembered()
	strangerOld, movedOld := hasMoved("old", wasOld, s.Old)
	strangerNew, movedNew := hasMoved("new", wasNew, s.New)
	d.stranger = cmp.Or(strangerOld, strangerNew)
	for _, m := range []string{movedOld, movedNew} {
		if m != "" {
			d.moved = append(d.moved, m)
		}
	}
	if d.stranger != "" || s.Phase != report.PhasePreparing && s.Phase != report.PhaseReady {
		return d, nil
	}
	fork := forked{was: wasOld.Timeline, found: movedOld != ""}
	if fork.found {
		if err := u.findFork(ctx, s, &fork); err != nil {
			return d, err
		}
	}
	for _, db := range s.Databases {
		if err := u.doubtDatabase(ctx, s, db, fork, movedNew != "", &d); err != nil {
			return d, err
		}
	}
	return d, nil
}

func (u *Upgrade) doubtDatabase(ctx context.Context, s *survey.Survey, db *survey.Database, fork forked, newMoved bool, d *doubts) error {
	at, err := s.Positions(ctx, db.Name, db.Links)
	if pg.SQLState(err) == "3D000" {
		return nil // not there yet on new
	}
	if err != nil {
		return err
	}
	made, err := u.readLinks(ctx, db)
	if err != nil {
		return err
	}
	var published map[string]linkMark
	err = u.c.In(ctx, "old", db.Name, func(conn *pgx.Conn) (err error) {
		published, err = readPublished(ctx, conn, db.Links)
		return err
	})
	if err != nil {
		return err
	}
	wrong := map[string]string{}
	for _, r := range renamesOf(db, made) {
		d.mend = append(d.mend, r.String())
		if r.taken {
			wrong[r.link] = r.String() + ", a name that another replicated table had: rows may have gone into the wrong one"
		}
	}
	for _, l := range db.Links {
		p, m := at[l.Name], made[l.Name]
		why, check := u.doubtLink(s, l, p, m, published[l.Name], fork)
		if newMoved && p.Subscription && why == "" {
			why = "new has failed over, and may have lost what it had applied"
		}
		why = cmp.Or(why, wrong[l.Name])
		switch {
		case why != "":
			d.links[l.Name] = why
		case check != "":
			d.verify = append(d.verify, check)
		case p.Subscription && p.Slot && p.Published != p.Subscribed:
			says, err := u.mismatch(ctx, db, l, p)
			if err != nil {
				return err
			}
			d.mend = append(d.mend, says)
		case p.Subscription && !l.Reaches(m.conninfo):
			d.mend = append(d.mend, l.Name+" still asks another server for what it applies")
		}
	}
	if s.Phase != report.PhaseReady {
		return nil
	}
	open, err := u.unfenced(ctx, db)
	if len(open) > 0 {
		d.verify = append(d.verify, fmt.Sprintf("the fence is off %s in %s on new: anybody could write there", report.Some(open), db.Name))
	}
	return err
}

// mismatch tells how a publication and its subscription differ.
func (u *Upgrade) mismatch(ctx context.Context, db *survey.Database, l link.Link, p *link.Position) (string, error) {
	var gone []string
	err := u.c.In(ctx, "new", db.Name, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `
			SELECT n.nspname::text, c.relname::text FROM pg_subscription_rel r
			JOIN pg_class c ON c.oid = r.srrelid JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE r.srsubid = $1 AND n.nspname <> 'crossfade' ORDER BY 1, 2`, p.SubID)
		if err != nil {
			return err
		}
		var schema, name string
		_, err = pgx.ForEachRow(rows, []any{&schema, &name}, func() error {
			if db.Inventory.Find(schema, name) == nil {
				gone = append(gone, schema+"."+name)
			}
			return nil
		})
		return err
	})
	if err != nil {
		return "", &pg.Error{Doing: "read what " + l.Name + " subscribes to", On: u.c.New.String(), Err: err}
	}
	if len(gone) == 0 {
		if gone, err = u.lost(ctx, db, l); err != nil {
			return "", err
		}
		if len(gone) > 0 {
			return fmt.Sprintf("%s is not on new any more: make it again there as it is on old (BEGIN READ WRITE before it), or drop it on old, too", report.Some(gone)), nil
		}
		return fmt.Sprintf("%s publishes %d tables and subscribes %d", l.Name, p.Published, p.Subscribed), nil
	}
	return fmt.Sprintf("%s was dropped on old: drop it on new, too (BEGIN READ WRITE before it), or make it again on old from what new has", report.Some(gone)), nil
}

// lost are the tables of a link that new does not have.
func (u *Upgrade) lost(ctx context.Context, db *survey.Database, l link.Link) (gone []string, err error) {
	names, quoted := []string{}, []string{}
	for _, t := range l.Tables {
		names, quoted = append(names, t.String()), append(quoted, t.SQL())
	}
	err = u.c.In(ctx, "new", db.Name, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT coalesce(array_agg(n ORDER BY n), '{}') FROM unnest($1::text[], $2::text[]) k(n, q) WHERE to_regclass(q) IS NULL", names, quoted).Scan(&gone)
	})
	if err != nil {
		return nil, &pg.Error{Doing: "look which tables of " + l.Name + " are there", On: u.c.New.String(), Err: err}
	}
	return gone, nil
}

// doubtLink tells why one link's tables must be copied again, or why its rows
// must be compared; both "" where it goes on as it is.
func (u *Upgrade) doubtLink(s *survey.Survey, l link.Link, p *link.Position, m madeLink, now linkMark, fork forked) (again, check string) {
	began := p.Slot || p.Subscription || m.point != 0
	switch {
	case !began:
		return "", "" // not made yet, or taken along by prepare
	case fork.found && !p.Slot:
		return "its slot did not survive the failover of old", ""
	case p.Lost:
		return "its slot has lost WAL that was not sent", ""
	case !p.Slot && p.Subscription:
		return "its slot was dropped", ""
	case s.Phase == report.PhaseReady && !p.Subscription:
		return "its subscription was dropped", ""
	case m.publication != 0 && now.Publication == 0:
		return "its publication was dropped", ""
	case m.publication != 0 && m.publication != now.Publication:
		return "its publication was dropped and made again", ""
	case m.publication != 0 && slices.ContainsFunc(now.Tables, func(oid uint32) bool { return !slices.Contains(m.tables, oid) }):
		return "tables were put into its publication by hand", ""
	}
	if !fork.found {
		return "", ""
	}
	return fork.judge(p, m, l.Reaches(m.conninfo) && p.Active, string(u.rb.Verify.Mode) == string(runbook.VerifyFull))
}

// forked is where the timeline that links were made with ended.
type forked struct {
	found bool
	was   int32
	at    pg.LSN // 0: the timeline now has no such ancestor
}

// judge tells whether new may hold rows that old's new primary never had.
// followed: the subscription has found the new primary by itself, so that its
// position says nothing of what it had before.
func (f forked) judge(p *link.Position, m madeLink, followed, verify bool) (again, check string) {
	has := m.point
	if p.Origin != nil {
		has = max(has, *p.Origin)
	}
	switch {
	case f.at == 0:
		return "old's new primary does not descend from the one that it was made with", ""
	case has <= f.at:
		return "", ""
	case followed && verify:
		return "", fmt.Sprintf("%s has followed old's failover by itself: whether it had rows beyond %s, where the timeline forked, is not known", p.Name, f.at)
	case followed:
		return fmt.Sprintf("it has followed old's failover by itself, and whether it had rows beyond %s, where the timeline forked, is not known", f.at), ""
	}
	return fmt.Sprintf("new has it up to %s, and old's new primary lacks everything of the earlier one after %s", has, f.at), ""
}

// findFork asks old's new primary where the earlier timeline ended.
func (u *Upgrade) findFork(ctx context.Context, s *survey.Survey, f *forked) error {
	rep, err := u.c.Old.Replication(ctx, s.Old.Version)
	if err != nil {
		return err
	}
	ends, err := pg.Timelines(ctx, rep, s.Old.Identity.Timeline)
	if cerr := rep.Close(context.WithoutCancel(ctx)); err == nil {
		err = cerr
	}
	if err != nil {
		return &pg.Error{Doing: "read the history of the timeline", On: u.c.Old.String(), Err: err}
	}
	f.at = ends[f.was]
	return nil
}

// madeLink is what was written down of a link when it was made, and what stands
// in its subscription.
type madeLink struct {
	point       pg.LSN // where the copy of its tables began
	publication uint32
	tables      []uint32
	conninfo    string
	names       map[uint32]runbook.TableName // by OID on old; nil: not written down
}

// linkMark is the value of link/<name> in crossfade.ledger: written when a
// set's slot is made.
type linkMark struct {
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

// readPublished reads what is published now, by link, of one database of old.
func readPublished(ctx context.Context, conn *pgx.Conn, links []link.Link) (map[string]linkMark, error) {
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
	all := map[string]linkMark{}
	var name string
	var oids []uint32
	var schemas, names []string
	var m linkMark
	_, err = pgx.ForEachRow(rows, []any{&name, &m.Publication, &m.Tables, &oids, &schemas, &names}, func() error {
		one := linkMark{Publication: m.Publication, Tables: slices.Clone(m.Tables), Names: map[uint32]storedName{}}
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

// markEffects write down the publications that the slots of links begin with.
func markEffects(db string, links []link.Link) []flow.Effect {
	does := make([]flow.Effect, len(links))
	for i, l := range links {
		does[i] = flow.SQL("new", db, "INSERT INTO crossfade.ledger (key, value) VALUES ("+pg.Literal("link/"+l.Name)+", $mark) ON CONFLICT (key) DO UPDATE SET value = excluded.value")
	}
	return does
}

func (u *Upgrade) markLinks(ctx context.Context, db *survey.Database, links []link.Link, marks map[string]linkMark, point pg.LSN) error {
	for i, e := range markEffects(db.Name, links) {
		m := marks[links[i].Name]
		m.Point = point
		b, err := json.Marshal(m)
		if err != nil {
			return err
		}
		if err := u.c.Do(ctx, e.Fill(map[string]string{"mark": pg.Literal(string(b))})); err != nil {
			return err
		}
	}
	return nil
}

func (u *Upgrade) readLinks(ctx context.Context, db *survey.Database) (map[string]madeLink, error) {
	made := map[string]madeLink{}
	err := u.c.In(ctx, "new", db.Name, func(conn *pgx.Conn) error {
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
				var mark linkMark
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
		return nil, &pg.Error{Doing: "read how the links were made", On: u.c.New.String() + ", database " + db.Name, Err: err}
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

// unfenced are the tables of a database of new that anybody can write to.
func (u *Upgrade) unfenced(ctx context.Context, db *survey.Database) (open []string, err error) {
	err = u.c.In(ctx, "new", db.Name, func(conn *pgx.Conn) error {
		var up bool
		if up, err = u.c.Part.Up(ctx, conn); err != nil {
			return err
		}
		if open, err = cutover.Unarmed(ctx, conn, db.Elsewhere()); err == nil && !up {
			open = []string{"every table"}
		}
		return err
	})
	return open, err
}

// trustGate wants new to hold what old holds without a doubt.
func (u *Upgrade) trustGate(ctx context.Context, s *survey.Survey) (bool, string, error) {
	fresh := *s
	fresh.Old, fresh.OldErr = survey.Identify(ctx, u.c, "old")
	fresh.New, fresh.NewErr = survey.Identify(ctx, u.c, "new")
	if err := fresh.BothAnswer(); err != nil {
		return false, "", err
	}
	d, err := u.doubt(ctx, &fresh)
	if err != nil {
		return false, "", err
	}
	says := d.says()
	if says == "" {
		if says = u.rivals(ctx, &fresh); says != "" {
			return false, says, nil
		}
		return true, "no failover, and nothing was dropped by hand", nil
	}
	shut := &cutover.ErrShut{Says: says}
	switch {
	case d.stranger != "":
		shut.Do = "correct the runbook, then crossfade check"
	case s.Phase == report.PhaseReady || s.Phase == report.PhasePreparing:
		shut.Says, shut.Do = says+": run crossfade prepare", "crossfade prepare"
	case s.Phase == report.PhaseOpen:
		shut.Says = says + ": the way back may have a gap and is not taken; crossfade verify names what differs, crossfade finish goes on without a way back"
		shut.Do = "crossfade verify"
	default:
		shut.Says, shut.Do = says+": what is kept in step may have a gap; run crossfade abort, and prepare again", "crossfade abort"
	}
	return false, "", shut
}

// trustStep takes away what cannot be trusted, so that the copy makes it anew,
// lets the rest follow old to where it is now, and remembers what both sides
// are. ok: there is something to do.
func (u *Upgrade) trustStep(ctx context.Context, s *survey.Survey) (step flow.Step, ok bool, err error) {
	d, err := u.doubt(ctx, s)
	if err != nil {
		return step, false, err
	}
	if d.stranger != "" {
		return step, false, exit.Errorf(exit.Findings, "crossfade abort, with the runbook of that cluster, undoes what was made there", "%s", d.stranger)
	}
	z := s.Zero()
	unknown := z != nil && z.Closing.System == ""
	if d.says() == "" && !unknown || z == nil {
		return step, false, nil
	}
	const again = "UPDATE crossfade.upgrade SET state = 'preparing' WHERE attempt = 0"
	var does []flow.Effect
	distrust := len(d.links)+len(d.verify)+len(d.moved) > 0
	if distrust {
		does = append(does, flow.SQL("new", s.Home, again), flow.SQL("old", s.Home, again))
		s.Distrusted = true
	}
	type part struct {
		db      *survey.Database
		drop    []link.Link
		effects []flow.Effect
	}
	var parts []part
	for _, db := range s.Databases {
		p := part{db: db}
		mend, err := u.follow(ctx, s, db, d)
		if err != nil {
			return step, false, err
		}
		for _, l := range db.Links {
			if d.links[l.Name] != "" {
				p.drop = append(p.drop, l)
				does = append(does, append(l.DropSubscription(), l.DropSlot())...)
			}
		}
		p.effects = mend
		does = append(does, mend...)
		parts = append(parts, p)
	}
	does = append(does, flow.SQL("old", s.Home, ground.KeepMemory))
	title := "Drop what cannot be trusted: " + d.says()
	if d.says() == "" {
		title = "Write down which servers old and new are"
	}
	return flow.Step{
		ID: "trust", Title: title, Does: does, Done: flow.Never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			if d.says() != "" {
				t.Note("%s", d.says())
			}
			for _, p := range parts {
				if err := u.mayCopy(ctx, s, p.db, p.drop); err != nil {
					return err
				}
			}
			if distrust {
				for _, e := range does[:2] {
					if err := u.c.Do(ctx, e); err != nil && !pg.Missing(err) {
						return err
					}
				}
			}
			for _, p := range parts {
				if err := u.distrust(ctx, p.db, p.drop); err != nil {
					return err
				}
				for _, e := range p.effects {
					if err := u.c.Do(ctx, e); err != nil {
						return err
					}
				}
			}
			return u.ground.Remember(ctx, s, func(m *cutover.Memory) { m.Closing, m.Opening = cutover.WhomOf(s.Old), cutover.WhomOf(s.New) })
		},
	}, true, nil
}

// follow are the effects that let links that go on ask where old is now, and
// subscribe to what is published.
func (u *Upgrade) follow(ctx context.Context, s *survey.Survey, db *survey.Database, d doubts) ([]flow.Effect, error) {
	at, err := s.Positions(ctx, db.Name, db.Links)
	if pg.SQLState(err) == "3D000" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	made, err := u.readLinks(ctx, db)
	if err != nil {
		return nil, err
	}
	var does []flow.Effect
	for _, l := range db.Links {
		p := at[l.Name]
		if d.links[l.Name] != "" || !p.Subscription {
			continue
		}
		if !l.Reaches(made[l.Name].conninfo) {
			does = append(does, l.Reconnect())
		}
		lost, err := u.lost(ctx, db, l)
		if err != nil {
			return nil, err
		}
		if p.Published != p.Subscribed && p.Slot && len(lost) == 0 { // else the comparison of the catalogs says what to do
			if !p.Enabled {
				does = append(does, l.Enable())
			}
			does = append(does, l.Refresh())
		}
	}
	return does, nil
}

// distrust drops the subscriptions and slots of links: without them their sets
// are copied again.
func (u *Upgrade) distrust(ctx context.Context, db *survey.Database, links []link.Link) error {
	if len(links) == 0 {
		return nil
	}
	err := u.c.In(ctx, "new", db.Name, func(conn *pgx.Conn) error { return cutover.DropLinks(ctx, nil, conn, links) })
	if err != nil {
		return err
	}
	return u.c.In(ctx, "old", db.Name, func(conn *pgx.Conn) error { return cutover.DropLinks(ctx, conn, nil, links) })
}

// rivals names standbys of old, in the runbook, that are primaries beside it:
// clients may write to one that no link reads from.
func (u *Upgrade) rivals(ctx context.Context, s *survey.Survey) string {
	was, _ := s.Remembered()
	system := was.System
	if s.OldErr == nil {
		system = s.Old.Identity.SystemID
	}
	var says []string
	look := func(server *pg.Server, name string) {
		id, err := u.c.Ask(ctx, server, name)
		switch {
		case err != nil, id.InRecovery, id.SystemID != system:
		case s.OldErr == nil && id.Started.Equal(s.Old.Identity.Started) && id.Timeline == s.Old.Identity.Timeline: // it is old's primary
		default:
			says = append(says, fmt.Sprintf("%s has been promoted: it is a primary on timeline %d; stop the one that must not serve, let old.primary in the runbook name the other, and run crossfade prepare", name, id.Timeline))
		}
	}
	for i, p := range u.c.Places {
		if p.Old.String() != u.c.Old.String() && s.OldErr == nil {
			look(p.Old, fmt.Sprintf("host %d of old.primary", i+1))
		}
	}
	for _, sb := range u.rb.Old.Standbys {
		if server, err := pg.Parse(sb.Name, sb.Conninfo, ""); err == nil { // check says what is wrong with it
			look(server.As(u.c.Old.App), "standby "+sb.Name+" of old")
		}
	}
	return strings.Join(says, "; ")
}

// mayCopy refuses to end links of which it is known that their tables could not
// be copied again: they have other columns on new than on old.
func (u *Upgrade) mayCopy(ctx context.Context, s *survey.Survey, db *survey.Database, drop []link.Link) error {
	if len(drop) == 0 {
		return nil
	}
	diff, err := survey.Differences(ctx, u.c, db)
	if err != nil {
		return err
	}
	var bad []string
	for _, l := range drop {
		for _, t := range l.Tables {
			missing := slices.ContainsFunc(diff, func(d schema.Difference) bool { return d.Kind == "table" && d.Property == "" && d.Object == t.String() })
			for _, d := range schema.Unexpected(diff) {
				if !missing && d.Kind == "column" && strings.HasPrefix(d.Object, t.String()+".") {
					bad = append(bad, d.Says)
				}
			}
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return &exit.Error{
		Code: exit.Failed, On: "new", Says: fmt.Sprintf("tables of %s must be copied again, and are not alike on both sides: %s", db.Name, report.Some(bad)),
		Hint: "nothing was changed; make the same change on both sides (" + s.ByHand() + "), then run crossfade prepare again",
	}
}
