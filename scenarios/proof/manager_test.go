package proof

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
	"crossfade/scenarios/lab/labtest"
)

// managed is a world whose old is under a manager.
type managed struct {
	*world
	manager *lab.Manager
	metal   *lab.Cluster
	witness *lab.Cluster // of repmgr
}

// wantPaused wants the manager to say of itself that it is paused, or is not.
func (m *managed) wantPaused(when string, want bool) {
	m.t.Helper()
	paused, err := m.manager.Paused(m.t.Context())
	m.Must(err)
	if paused != want {
		m.t.Errorf("%s: %s says that paused is %t", when, m.manager.Kind, paused)
	}
}

// finding is the finding of an id and an object, as "level: says".
func (m *managed) finding(id, object string) string {
	m.t.Helper()
	for _, f := range m.try("check", "--json").lines("finding") {
		if f["id"] == id && f["object"] == object {
			return fmt.Sprintf("%s: %s", f["level"], f["says"])
		}
	}
	return ""
}

// wantFinding wants one that begins so and has some words in it.
func (m *managed) wantFinding(id, object, level string, words ...string) {
	m.t.Helper()
	says := m.finding(id, object)
	ok := strings.HasPrefix(says, level+": ")
	for _, w := range words {
		ok = ok && strings.Contains(says, w)
	}
	if !ok {
		m.t.Errorf("finding %s of %s must be a %s with %q, and is %q", id, object, level, words, says)
	}
}

// step is what the plan says that a step does.
func (m *managed) step(plan, id string) string {
	m.t.Helper()
	for _, s := range m.do(0, "plan", "--json", "--only", plan).lines("step") {
		if s["id"] == id {
			b, err := json.Marshal(s["effects"])
			m.Must(err)
			return string(b)
		}
	}
	return ""
}

// newRepmgr is a world with metal and a witness under repmgr; the runbook knows
// neither how to talk to it nor the witness.
func newRepmgr(t *testing.T, s setting) *managed {
	t.Helper()
	store := &lab.Store{Say: func(line string) { t.Log(line) }}
	install, err := store.With(t.Context(), 15, "repmgr")
	if err != nil {
		t.Fatal(err)
	}
	m := &managed{}
	s.old, s.new, s.oldInstall, s.oldSet = 15, 18, install, lab.RepmgrSettings()
	s.wire = func(w *world, s *setting) {
		m.metal = w.Lab.Standby(w.old, "metal", lab.StandbyOptions{})
		m.witness = w.Start(lab.Options{Name: "witness", Install: install, Settings: lab.RepmgrSettings()})
		m.manager, err = w.Repmgr(t.Context(), w.old, []*lab.Cluster{m.metal}, m.witness)
		w.Must(err)
		s.oldLines += fmt.Sprintf("  standbys: [{name: metal, conninfo: %q}]\n", m.metal.Conninfo(""))
	}
	m.world = newWorld(t, s)
	return m
}

// TestRepmgr: the cutover holds a real repmgr still on every node, the witness
// that no runbook names included, and lets it go where it is undone, aborted or
// rolled back. A node that it cannot reach stops it before anything is touched.
// What somebody else has paused stays so. Line: Step manager/pause, Undo.
func TestRepmgr(t *testing.T) {
	long(t)
	m := newRepmgr(t, setting{extra: "hooks: {before_cutover: {run: [/bin/false]}}\n"})
	m.wantFinding("replication-manager", "repmgr", "warn", "primary wacken, standby metal, witness witness")
	if says := m.step("cutover", "manager/pause"); strings.Count(says, "repmgr.repmgrd_pause(true)") != 3 {
		t.Errorf("the plan says of manager/pause: %s", says)
	}
	m.do(0, "prepare")
	m.wantPaused("after prepare", false)
	slots := m.Value(m.old, "", "SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots WHERE slot_type = 'logical'")

	m.do(4, "cutover", "--yes") // the hook says no, after manager/pause
	m.wantPaused("after a cutover that was undone", false)
	m.wantPhase("ready", "old")

	m.Must(m.witness.Freeze(t.Context()))
	m.wantFinding("replication-manager", "repmgr", "block", "witness witness")
	r := m.do(4, "cutover", "--yes")
	if !strings.Contains(r.stderr, "witness") {
		t.Errorf("the witness that does not answer is not named\n%s", r)
	}
	m.Must(m.witness.Thaw(t.Context()))
	m.wantPhase("ready", "old")
	m.wantPaused("after a cutover that could not hold the witness", false)

	m.runbookLine("before_cutover: {run: [/bin/false]}", "before_cutover: {run: [/bin/true]}")
	m.do(0, "cutover", "--yes")
	m.wantPaused("after the cutover", true)
	if notes := fmt.Sprint(m.status()["notes"]); !strings.Contains(notes, "repmgr is kept from failing old over") {
		t.Errorf("status does not tell that repmgr is paused: %s", notes)
	}
	m.do(0, "rollback", "--yes")
	m.wantPaused("after the rollback", false)
	if got := m.Value(m.old, "", "SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots WHERE slot_type = 'logical'"); got != slots {
		t.Errorf("slots of old: %q, and after prepare %q", got, slots)
	}

	// Paused by hand, it is nobody's to resume.
	for _, c := range []*lab.Cluster{m.old, m.metal, m.witness} {
		m.Exec(c, "repmgr", "SELECT repmgr.repmgrd_pause(true)")
	}
	m.wantFinding("replication-manager", "repmgr", "note", "holds still")
	m.do(0, "cutover", "--yes")
	m.do(0, "rollback", "--yes")
	m.do(0, "abort", "--yes")
	m.wantPaused("paused by hand, after abort", true)
}

// TestRepmgrOfADraft: init does not take the witness for a standby, and leaves
// repmgr's own database out; a runbook that moves it is refused.
func TestRepmgrOfADraft(t *testing.T) {
	long(t)
	m := newRepmgr(t, setting{})
	hosts := func(nodes ...*lab.Cluster) string {
		var names, ports []string
		for _, c := range nodes {
			names, ports = append(names, c.Address()), append(ports, fmt.Sprint(c.Port))
		}
		return fmt.Sprintf("host=%s port=%s user=postgres dbname=postgres sslmode=disable", strings.Join(names, ","), strings.Join(ports, ","))
	}
	r := m.do(1, "init", "--old", hosts(m.old, m.witness, m.metal), "--new", m.new.Conninfo(""))
	if !strings.Contains(r.stderr, "both primaries") {
		t.Errorf("a witness among the nodes of old\n%s", r)
	}
	r = m.do(0, "init", "--old", hosts(m.old, m.metal), "--new", m.new.Conninfo(""))
	for word, want := range map[string]bool{"name: metal": true, "name: shop": true, "witness": false, "  - name: repmgr": false, "# repmgr": true} {
		if strings.Contains(r.stdout, word) != want {
			t.Errorf("%q in the runbook must be %t\n%s", word, want, r.stdout)
		}
	}
	m.runbookLine("  - name: shop\n", "  - name: repmgr\n  - name: shop\n")
	m.do(3, "check")
	m.wantFinding("manager-database", "repmgr", "block", "database repmgr")
}

// patroniPassword is what Patroni wants to know of who changes something.
const patroniPassword = "death-metal"

// newPatroni is a world with metal and a third vote under Patroni.
func newPatroni(t *testing.T, s setting) *managed {
	t.Helper()
	labtest.Program(t, "patroni")
	m := &managed{}
	s.wire = func(w *world, s *setting) {
		var err error
		m.metal = w.Lab.Standby(w.old, "metal", lab.StandbyOptions{})
		m.manager, err = w.Patroni(t.Context(), w.old, []*lab.Cluster{m.metal}, "vote", patroniPassword)
		w.Must(err)
		s.oldLines += fmt.Sprintf("  standbys: [{name: metal, conninfo: %q}]\n", m.metal.Conninfo(""))
	}
	m.world = newWorld(t, s)
	return m
}

// dynamic is a setting that all nodes of Patroni share, as JSON.
func (m *managed) dynamic(name string) string {
	m.t.Helper()
	req, err := http.NewRequestWithContext(m.t.Context(), http.MethodGet, m.manager.API[0]+"/config", nil)
	m.Must(err)
	answer, err := http.DefaultClient.Do(req)
	m.Must(err)
	var all map[string]json.RawMessage
	m.Must(json.NewDecoder(answer.Body).Decode(&all))
	m.Must(answer.Body.Close())
	return string(all[name])
}

// TestPatroni: a Patroni that nobody knows how to talk to stops everything. One
// that is known leaves the slots of the upgrade alone from prepare on, is paused
// by the cutover, and abort puts both back. That it would have dropped them is
// seen by the slot of somebody else. Line: Step manager/slots.
func TestPatroni(t *testing.T) {
	long(t)
	m := newPatroni(t, setting{})
	m.wantFinding("replication-manager", "Patroni", "block", "no REST API of Patroni answers")
	m.do(3, "prepare")

	m.runbookLine("  standbys: [{name: metal", fmt.Sprintf("  manager: {patroni: [%q]}\n  standbys: [{name: metal", m.manager.API[1]))
	m.wantFinding("replication-manager", "Patroni", "warn", "primary wacken, standby metal")
	before := m.dynamic("ignore_slots")
	if r := m.do(1, "prepare"); !strings.Contains(r.stderr, "PATRONI_RESTAPI_PASSWORD") {
		t.Errorf("Patroni wants a password\n%s", r)
	}
	m.env = append(m.env, "PATRONI_RESTAPI_USERNAME="+lab.PatroniAdmin, "PATRONI_RESTAPI_PASSWORD="+patroniPassword)
	m.do(0, "prepare")
	m.wantPaused("after prepare", false)
	const ours = "SELECT count(*)::text FROM pg_replication_slots WHERE slot_type = 'logical' AND slot_name ~ '^cf_'"
	n := m.Value(m.old, "", ours)

	// Nobody receives from them, and Patroni looks anew at the slots that there are.
	m.Must(m.new.Kill(t.Context()))
	m.Exec(m.old, "shop", "SELECT pg_create_logical_replication_slot('stranger', 'pgoutput')")
	m.Until(m.old, "", "SELECT NOT bool_or(active) FROM pg_replication_slots WHERE slot_type = 'logical'")
	m.Must(m.manager.Restart(t.Context()))
	m.Until(m.old, "", "SELECT NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = 'stranger')")
	if got := m.Value(m.old, "", ours); got != n || n == "0" {
		t.Errorf("Patroni has left %s of %s slots of the upgrade\n%s", got, n, m.manager.Log())
	}
	m.Must(m.new.Boot(t.Context()))

	limit, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	m.Must(m.manager.Until(limit, false))
	m.do(0, "cutover", "--yes")
	m.wantPaused("after the cutover", true)
	m.do(0, "rollback", "--yes")
	m.wantPaused("after the rollback", false)
	m.do(0, "abort", "--yes")
	m.wantPaused("after abort", false)
	if got := m.dynamic("ignore_slots"); got != before {
		t.Errorf("ignore_slots is %s, and was %s", got, before)
	}
}
