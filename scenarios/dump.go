package scenarios

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"crossfade/scenarios/lab"
)

// dump is what pg_dumpall says of a cluster but rows: statements by what they
// are about, in the order of the text.
type dump map[string][]string

var (
	dumpDatabase = regexp.MustCompile(`^-- Database "(.*)" dump$`)
	dumpEntry    = regexp.MustCompile(`^-- (Name: .*; Type: .*; Schema: .*; Owner: .*)$`)
	dumpPart     = regexp.MustCompile(`^-- (Roles|User Configurations|Role memberships|Tablespaces|Databases|Role privileges on configuration parameters)$`)
	// What only says how to restore, not what there is.
	dumpNoise = regexp.MustCompile(`^(SET [a-z_]+ = .*;|SELECT pg_catalog\.set_config\('search_path', '', false\);|\\(un)?restrict .*|\\connect .*|CREATE ROLE postgres;|--.*|)$`)
	// What the links that apply on a closed side have set there until it is opened or the upgrade finished.
	dumpLinks = regexp.MustCompile(`^ALTER ROLE .* IN DATABASE .* SET (array_nulls|xmloption|lc_monetary|lock_timeout|transaction_timeout|default_transaction_isolation|role) TO `)
	// A version's own, written and read by the server alone.
	dumpAttver = regexp.MustCompile(`^ALTER TABLE ONLY .* ALTER COLUMN .* SET \(pg_attver=\d+\);$`)
)

// dumpText is pg_dumpall's text, by the new cluster's program, whichever
// cluster it is of. The database of old's manager stays with old.
func (st *Stage) dumpText(ctx context.Context, of *lab.Cluster) (string, error) {
	text, err := st.Lab.Run(ctx, filepath.Join(st.New.Bin, "pg_dumpall"), "--schema-only", "--no-publications", "--no-subscriptions",
		"--exclude-database="+repmgr, "-d", of.Conninfo(""))
	if err != nil {
		return "", fmt.Errorf("dump %s: %w", of.Name, err)
	}
	return text, nil
}

// readDump takes a dump apart. What crossfade keeps on a cluster during an
// upgrade is left out, and so are, until it is finished, the replica identities
// that the scenario's runbook sets.
func (st *Stage) readDump(text string) dump {
	d := dump{}
	database, about := "", "cluster"
	identities := map[string]bool{}
	for _, db := range st.Scenario.Databases {
		for table := range db.Identity {
			identities[db.Name+" ALTER TABLE ONLY "+table] = true
		}
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if m := dumpDatabase.FindStringSubmatch(line); m != nil {
			database, about = m[1], "head"
			continue
		}
		if m := dumpEntry.FindStringSubmatch(line); m != nil {
			about = m[1]
			continue
		}
		if m := dumpPart.FindStringSubmatch(line); m != nil {
			about = m[1]
			continue
		}
		key := strings.TrimSpace(database + " " + about)
		table, _, identity := strings.Cut(line, " REPLICA IDENTITY ")
		if dumpNoise.MatchString(line) || dumpAttver.MatchString(line) || !st.finished && dumpLinks.MatchString(line) || identity && !st.finished && identities[database+" "+table] || ours(about, line) {
			continue
		}
		d[key] = append(d[key], line)
	}
	for key, lines := range d {
		// These are sets; everything else has an order that counts, such as columns.
		if strings.Contains(key, "; Type: ACL;") || strings.Contains(key, "DEFAULT ACL;") || !strings.Contains(key, "; Type: ") || strings.Contains(key, "; Type: DATABASE PROPERTIES;") {
			slices.Sort(lines)
		}
	}
	return d
}

// ours says whether a line of a dump is about what crossfade keeps.
func ours(about, line string) bool {
	return strings.Contains(about, "; Schema: crossfade;") || strings.HasPrefix(about, "Name: crossfade; Type: SCHEMA;") ||
		strings.HasPrefix(about, "Name: SCHEMA crossfade;") || strings.HasPrefix(about, "Name: crossfade_ddl;") ||
		strings.Contains(about, " crossfade_fence; Type: TRIGGER;") || strings.Contains(line, " crossfade_fence ") || strings.Contains(line, "default_transaction_read_only")
}

// differences are the things that are not the same in two dumps, at most a few
// of them, and how many there are.
func (d dump) differences(want dump) (some []string, n int) {
	keys := maps.Clone(d)
	maps.Copy(keys, want)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if slices.Equal(d[key], want[key]) {
			continue
		}
		n++
		if len(some) < 10 {
			some = append(some, fmt.Sprintf("%s: is %q, must be %q", key, lessThan(d[key], want[key]), lessThan(want[key], d[key])))
		}
	}
	return some, n
}

// lessThan is the lines that a has and b has not.
func lessThan(a, b []string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(a), func(l string) bool { return slices.Contains(b, l) }), "\n")
}

// reference restores a dump into an empty server of the new major and dumps
// that: the same objects in the new major's words. Views, for one, are not
// printed alike by two majors.
func (st *Stage) reference(ctx context.Context, text string) (string, error) {
	ref, err := st.Lab.Start(ctx, lab.Options{Name: "reference", Install: st.fresh})
	if err != nil {
		return "", err
	}
	path := filepath.Join(st.Dir, "reference.sql")
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if !dumpAttver.MatchString(strings.TrimRight(line, "\n")) {
			kept.WriteString(line)
		}
	}
	if err := os.WriteFile(path, []byte(kept.String()), 0o644); err != nil {
		return "", err
	}
	// A statement that fails is a difference later; so it goes on.
	if _, err := st.Lab.Run(ctx, filepath.Join(st.New.Bin, "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=0", "-d", ref.Conninfo(""), "-f", path); err != nil {
		return "", fmt.Errorf("restore into %s: %w", ref.Name, err)
	}
	again, err := st.dumpText(ctx, ref)
	if err != nil {
		return "", err
	}
	return again, ref.Remove(ctx)
}

// shape is what each side must look like, by pg_dumpall: old as it was before
// crossfade touched it, and new as the new major prints the same.
type shape map[string]string

// shape looks at old before anything is done to it.
func (st *Stage) shape(ctx context.Context) (shape, error) {
	text, err := st.dumpText(ctx, st.Old)
	if err != nil {
		return nil, err
	}
	again, err := st.reference(ctx, text)
	if err != nil {
		return nil, err
	}
	return shape{sideOld: text, sideNew: again}, nil
}
