package proof

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// takenStandbys has old's standbys of these names, and places for new's that
// take theirs: at the same address, in another folder. more are keys of new's.
func (w *world) takenStandbys(s *setting, more string, names ...string) map[string]*lab.Cluster {
	w.t.Helper()
	old := map[string]*lab.Cluster{}
	s.oldLines += "  standbys:\n"
	s.newLines += "    standbys:\n"
	for _, name := range names {
		old[name] = w.Lab.Standby(w.old, name, lab.StandbyOptions{})
		s.oldLines += fmt.Sprintf("    - {name: %s, conninfo: %q, host: \"local:\", data: %q}\n", name, old[name].Conninfo(""), old[name].DataDir)
		place := w.Reserve(name+"18", w.new.Major)
		place.Port = old[name].Port
		w.standbys = append(w.standbys, place)
		s.newLines += fmt.Sprintf("      - {name: %s, conninfo: %q, host: \"local:\", bin: %q, data: %q, build: after%s}\n", name, old[name].Conninfo(""), w.new.Bin, place.DataDir, more)
	}
	return old
}

// TestBuildAfter: old's only standby, for which its commits wait, is stopped
// after open and new's is built in its place, although the tool is killed
// while it copies. A rollback is without it, and its commits do not hang.
func TestBuildAfter(t *testing.T) {
	long(t)
	var old map[string]*lab.Cluster
	w := newWorld(t, setting{wire: func(w *world, s *setting) { old = w.takenStandbys(s, "", "metal") }})
	metal := old["metal"]
	w.exe = binary(t, "crossfade_panic")
	w.Exec(w.old, "", "ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (metal)'", "SELECT pg_reload_conf()")
	w.Until(w.old, "", "SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = 'metal' AND sync_state = 'sync'")

	r := w.do(0, "check")
	for _, words := range []string{"standby-taken", "would hang after a rollback"} {
		if !strings.Contains(r.stdout, words) {
			t.Errorf("check does not say %q\n%s", words, r)
		}
	}
	if r := w.do(0, "plan", "--only", "prepare"); strings.Contains(r.stdout, "standby/metal/") {
		t.Errorf("prepare would build it\n%s", r)
	}
	w.do(0, "prepare")
	if !metal.Running() {
		t.Fatal("prepare has stopped old's standby")
	}
	if got := w.Value(w.new, "", "SHOW synchronous_standby_names"); got != "" {
		t.Errorf("before its standby is built commits on new wait for %s", got)
	}

	// Killed while it copies: it goes forward, and there is a way back meanwhile.
	wantExit(t, w.inject("CROSSFADE_KILL=standby/metal/copy+30ms", "cutover", "--yes"), -1)
	w.wantPhase("open", "new")
	if metal.Running() {
		t.Error("old's standby runs where new's is being built")
	}
	w.Exec(w.new, "shop", "INSERT INTO orders (what) VALUES ('while nobody is there')")
	w.do(0, "rollback", "--yes")
	w.wantPhase("rolled_back", "old")
	if got := w.Value(w.old, "", "SHOW synchronous_standby_names"); got != "" {
		t.Errorf("commits on old wait for %q, which was taken away", got)
	}
	began := time.Now()
	w.Exec(w.old, "shop", "SET synchronous_commit = remote_apply; INSERT INTO orders (what) VALUES ('on old again')")
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("a commit on old took %s", d)
	}

	w.do(0, "cutover", "--yes")
	w.wantPhase("open", "new")
	w.Until(w.new, "", "SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = 'metal' AND sync_state = 'sync'")
	if got := w.Value(w.standbys[0], "", "SHOW data_directory"); got != w.standbys[0].DataDir {
		t.Errorf("new's standby runs in %s", got)
	}
	if _, err := os.Stat(filepath.Join(metal.DataDir, "PG_VERSION")); err != nil {
		t.Errorf("what old's standby had: %v", err)
	}
	if got, want := w.Value(w.new, "", "SHOW synchronous_standby_names"), "FIRST 1 (metal)"; got != want {
		t.Errorf("commits on new wait for %q, not %q", got, want)
	}
	w.Exec(w.new, "shop", "SET synchronous_commit = remote_apply; INSERT INTO orders (what) VALUES ('on both')")
	w.idle("cutover", "--yes")
	// New's standby must know that new is closed, old's is not waited for.
	w.do(0, "rollback", "--yes")
	w.wantPhase("rolled_back", "old")
	w.do(0, "cutover", "--yes")
	w.do(0, "finish", "--yes")
	if !w.standbys[0].Running() {
		t.Error("finish has stopped new's standby")
	}
}

// TestBuildAfterKilled: the cutover is killed in every step after open that
// has to do with two siblings, one of them in the very folder that old's had.
func TestBuildAfterKilled(t *testing.T) {
	long(t)
	var old map[string]*lab.Cluster
	w := newWorld(t, setting{wire: func(w *world, s *setting) {
		old = w.takenStandbys(s, "", "metal", "rock")
		s.newLines = strings.Replace(s.newLines, w.standbys[1].DataDir, old["rock"].DataDir, 1)
		w.standbys[1].DataDir = old["rock"].DataDir
		s.newLines += "    synchronous_standby_names: ANY 2 (metal, rock)\n"
	}})
	w.exe = binary(t, "crossfade_panic")
	w.Exec(w.old, "", "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (metal, rock)'", "SELECT pg_reload_conf()")
	w.do(0, "prepare")
	var steps, named []string
	for _, id := range w.steps("cutover") {
		if strings.HasPrefix(id, "standby/") {
			steps = append(steps, id)
		} else {
			named = append(named, id)
		}
	}
	if !slices.Contains(steps, "standby/rock/retire") || !slices.Contains(steps, "standby/old/synchronous") {
		t.Fatalf("after open: %v", steps)
	}
	var killed []string
	for len(killed) <= len(steps) {
		r := w.inject("CROSSFADE_KILL=!"+strings.Join(append(named, killed...), ","), "cutover", "--yes")
		wantExit(t, r, -1, 0)
		if r.exit == 0 {
			break
		}
		_, at, _ := strings.Cut(lastLine(r.stderr), "killed at ")
		killed = append(killed, at)
	}
	t.Logf("killed at %s", strings.Join(killed, " "))
	if len(killed) < 8 || !slices.Contains(killed, "standby/metal/retire") || !slices.Contains(killed, "standby/rock/aside") {
		t.Errorf("killed only at %v", killed)
	}
	w.wantPhase("open", "new")
	w.do(0, "cutover", "--yes")
	w.idle("cutover", "--yes")
	w.Until(w.new, "", "SELECT count(*) = 2 FROM pg_stat_replication WHERE sync_state = 'quorum' AND state = 'streaming'")
	aside, err := filepath.Glob(old["rock"].DataDir + ".before-up-*")
	if err != nil || len(aside) != 1 {
		t.Errorf("moved aside: %v %v", aside, err)
	}
	w.do(0, "rollback", "--yes")
	if got := w.Value(w.old, "", "SHOW synchronous_standby_names"); got != "" {
		t.Errorf("commits on old wait for %q", got)
	}
	w.do(0, "abort", "--yes")
	if got := w.Value(w.new, "", "SELECT count(*) FROM pg_replication_slots"); got != "0" {
		t.Errorf("%s slots are left on new", got)
	}
}

// TestBuildAfterRefuses: what is not the standby that the runbook means is not
// stopped, and the cutover, which is open, says so and goes on when it is right.
func TestBuildAfterRefuses(t *testing.T) {
	long(t)
	var old map[string]*lab.Cluster
	w := newWorld(t, setting{wire: func(w *world, s *setting) { old = w.takenStandbys(s, "", "metal") }})
	metal := old["metal"]
	w.do(0, "prepare")
	// Another folder than the runbook's: found before anything is done.
	w.runbookLine("data: \""+metal.DataDir+"\"", "data: \"/somewhere/else\"")
	if r := w.do(3, "check"); !strings.Contains(r.stdout, "standby-taken-place") {
		t.Errorf("check does not see that it runs elsewhere\n%s", r)
	}
	if r := w.do(6, "cutover", "--yes"); !strings.Contains(r.stderr, "not in /somewhere/else") {
		t.Errorf("it is not said why\n%s", r)
	}
	w.wantPhase("open", "new")
	w.runbookLine("data: \"/somewhere/else\"", "data: \""+metal.DataDir+"\"")
	// Promoted by somebody meanwhile.
	w.Must(metal.Promote(t.Context()))
	if r := w.do(6, "cutover", "--yes"); !strings.Contains(r.stderr, "a primary of the old cluster") {
		t.Errorf("it is not said why\n%s", r)
	}
	if !metal.Running() {
		t.Fatal("a primary was stopped")
	}
	// Another cluster's server at its address.
	w.Must(metal.Stop(t.Context(), lab.Fast))
	w.do(0, "cutover", "--yes")
	w.Until(w.new, "", "SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = 'metal' AND state = 'streaming'")
}

// TestBuildAfterOverSSH: old's standbys are stopped, and new's built side by
// side in their places, on a machine that only ssh reaches, in folders and by
// commands that need quoting.
func TestBuildAfterOverSSH(t *testing.T) {
	long(t)
	var old map[string]*lab.Cluster
	w := newWorld(t, setting{wire: func(w *world, s *setting) {
		d := w.SSHD("sshd", nil)
		w.env = append(w.env, "PATH="+d.Bin+":"+os.Getenv("PATH"))
		old = w.takenStandbys(s, "", "metal", "rock")
		for _, lines := range []*string{&s.oldLines, &s.newLines} {
			*lines = strings.ReplaceAll(*lines, `"local:"`, fmt.Sprintf("%q", d.URL("")))
		}
		for i, name := range []string{"metal", "rock"} {
			place := filepath.Join(w.standbys[i].Home, "it's a (new) dir")
			s.newLines = strings.Replace(s.newLines, fmt.Sprintf("%q", w.standbys[i].DataDir), fmt.Sprintf("%q", place), 1)
			w.standbys[i].DataDir = place
			// By a command of the operator's, with arguments that a shell would take apart.
			stop := filepath.Join(old[name].Home, "stop it's")
			w.Must(os.WriteFile(stop, []byte(fmt.Sprintf("#!/bin/sh\n[ \"$1\" = \"it's \\$HOME; a * \\\"word\\\"\" ] || exit 7\nexec %s stop -D %s -m fast -w\n", filepath.Join(w.old.Bin, "pg_ctl"), old[name].DataDir)), 0o755))
			w.Must(os.Chmod(stop, 0o755))
			s.oldLines = strings.Replace(s.oldLines, fmt.Sprintf("data: %q}", old[name].DataDir), fmt.Sprintf("data: %q, stop: [%q, %q]}", old[name].DataDir, stop, `it's $HOME; a * "word"`), 1)
		}
	}})
	w.do(0, "check")
	w.do(0, "prepare")
	r := w.do(0, "cutover", "--yes")
	w.Until(w.new, "", "SELECT count(*) = 2 FROM pg_stat_replication WHERE application_name IN ('metal', 'rock') AND state = 'streaming'")
	for i, name := range []string{"metal", "rock"} {
		if got := w.Value(w.standbys[i], "", "SHOW data_directory"); got != w.standbys[i].DataDir {
			t.Errorf("%s runs in %s\n%s", name, got, r)
		}
	}
	w.idle("cutover", "--yes")
	w.do(0, "rollback", "--yes")
	w.do(0, "abort", "--yes")
}
