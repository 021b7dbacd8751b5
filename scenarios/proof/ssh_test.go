package proof

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestStandbyOverSSH: a standby of new is built, restarted with another setting,
// and taken away on a machine that only ssh reaches, in a folder whose name
// needs quoting. ssh logs in as the servers' user: where the tests run as root,
// that is another one than the tool's.
func TestStandbyOverSSH(t *testing.T) {
	var data string
	w := newWorld(t, setting{wire: func(w *world, s *setting) {
		d := w.SSHD("sshd", nil)
		w.env = append(w.env, "PATH="+d.Bin+":"+os.Getenv("PATH"))
		place := w.Reserve("metal18", w.new.Major)
		data = filepath.Join(place.Home, "it's a (new) dir")
		place.DataDir = data
		w.standbys = append(w.standbys, place)
		s.newLines = fmt.Sprintf("    standbys:\n      - {name: metal, conninfo: %q, host: %q, bin: %q, data: %q}\n", place.Conninfo(""), d.URL(""), w.new.Bin, data)
	}})
	w.do(0, "check")
	for _, s := range w.do(0, "plan", "--json").lines("step") {
		for _, e := range s["effects"].([]any) {
			on, _ := e.(map[string]any)["on"].(string)
			if id := fmt.Sprint(s["id"]); id == "standby/metal/copy" && !strings.HasPrefix(on, "ssh://") {
				t.Errorf("%s runs on %q", id, on)
			}
		}
	}
	r := w.do(0, "prepare")
	w.Until(w.new, "", "SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = 'metal' AND state = 'streaming'")
	if got := w.Value(w.standbys[0], "", "SELECT current_setting('data_directory')"); got != data {
		t.Errorf("it runs in %s\n%s", got, r)
	}
	w.do(0, "prepare") // there is nothing to do
	w.runbookLine(fmt.Sprintf("data: %q}", data), fmt.Sprintf("data: %q, settings: {max_standby_streaming_delay: 7s}}", data))
	w.do(0, "prepare")
	if got := w.Value(w.standbys[0], "", "SHOW max_standby_streaming_delay"); got != "7s" {
		t.Errorf("max_standby_streaming_delay is %s", got)
	}
	w.do(0, "cutover", "--yes")
	w.do(0, "rollback", "--yes")
	w.do(0, "abort", "--yes")
	if n := w.Value(w.new, "", "SELECT count(*) FROM pg_replication_slots"); n != "0" {
		t.Errorf("%s slots are left on new", n)
	}
}
