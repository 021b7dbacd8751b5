package proof

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// TestInit: the runbook that init writes from a live cluster, a cascade with a
// delay in it, is one that prepare makes the same tree from.
func TestInit(t *testing.T) {
	w := newWorld(t, setting{sql: shopTables + "CREATE TABLE keyless (k int, v text);", oldSet: map[string]string{"synchronous_standby_names": "", "hot_standby_feedback": "on"}})
	w.Exec(w.old, "shop", "ALTER TABLE log REPLICA IDENTITY DEFAULT")
	metal := w.Lab.Standby(w.old, "metal", lab.StandbyOptions{})
	power := w.Lab.Standby(metal, "power", lab.StandbyOptions{Delay: time.Second, Settings: map[string]string{"hot_standby_feedback": "off"}})
	rock := w.Lab.Standby(w.old, "rock", lab.StandbyOptions{NoApplicationName: true, Settings: map[string]string{"cluster_name": "blues"}})

	all := fmt.Sprintf("host=127.0.0.1,127.0.0.1,127.0.0.1,127.0.0.1 port=%d,%d,%d,%d user=postgres dbname=postgres sslmode=disable", w.old.Port, metal.Port, power.Port, rock.Port)
	args := []string{"init", "--old", all, "--new", w.new.Conninfo("postgres")}
	w.errs(1, "init", "--old", metal.Conninfo("postgres"), "--new", w.new.Conninfo("postgres")) // a standby alone is no cluster
	w.errs(1, "init", "--old", fmt.Sprintf("host=127.0.0.1,127.0.0.1 port=%d,%d user=postgres dbname=postgres", w.old.Port, w.new.Port), "--new", w.new.Conninfo("postgres"))
	text := w.do(0, args...).stdout
	if json := w.has(w.do(0, append(args, "--json")...), "runbook", "file", "text")[0]["text"]; json != text {
		t.Errorf("with --json it writes something else:\n%s\n\nand without\n%s", json, text)
	}
	file := filepath.Join(w.dir, "drafted.yaml")
	w.do(0, append(args, "-o", file)...)
	w.errs(2, append(args, "-o", file)...) // it may have been worked on
	for _, want := range []string{
		"#   └─ blues  ", "#   └─ metal  ", "#      └─ power  ", "applies 1s later",
		"public.keyless: full", "public.log: full", "name: side",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the draft has no %q", want)
		}
	}

	// A port beside the old one may be somebody else's here.
	places := map[string]*lab.Cluster{}
	for name, c := range map[string]*lab.Cluster{"metal": metal, "power": power, "blues": rock} {
		place := w.Reserve(name+"18", w.new.Major)
		for from, to := range map[string]string{
			fmt.Sprintf("port=%d ", c.Port+1): fmt.Sprintf("port=%d ", place.Port), "data: " + c.DataDir + "-18\n": "data: " + place.DataDir + "\n",
		} {
			if !strings.Contains(text, from) {
				t.Fatalf("the draft has no %q:\n%s", from, text)
			}
			text = strings.Replace(text, from, to, 1)
		}
		places[name] = place
	}
	w.Must(os.WriteFile(w.book(), []byte(text), 0o600))
	r := w.do(0, "prepare")
	for name, up := range map[string]*lab.Cluster{"metal": w.new, "blues": w.new, "power": places["metal"]} {
		if got := w.Value(up, "", "SELECT state FROM pg_stat_replication WHERE application_name = '"+name+"'"); got != "streaming" {
			t.Errorf("%s is %q following %s\n%s", name, got, up.Name, r)
		}
	}
	for name, want := range map[string]string{"metal": "0 on", "power": "1s off", "blues": "0 on"} {
		if got := w.Value(places[name], "", "SELECT current_setting('recovery_min_apply_delay') || ' ' || current_setting('hot_standby_feedback')"); got != want {
			t.Errorf("%s has delay and feedback %s, wanted %s", name, got, want)
		}
	}
}
