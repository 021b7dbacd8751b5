package scenarios

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// layers are the packages of the product: each may import those of higher
// lines, counted from the end, and none of its own line.
var layers = [][]string{
	{"cmd/crossfade"},
	{"upgrade"},
	{"upgrade/transfer", "upgrade/members", "upgrade/draft"},
	{"upgrade/trust", "upgrade/trial", "upgrade/owners"},
	{"upgrade/ground"},
	{"upgrade/scratch"},
	{"upgrade/survey"},
	{"upgrade/clusters"},
	{"upgrade/runbook", "upgrade/exit"},
	{"cutover", "upgrade/check", "upgrade/load", "upgrade/verify", "upgrade/standby", "upgrade/manager", "upgrade/forecast", "upgrade/report"},
	{"cutover/traffic", "upgrade/link", "upgrade/rights"},
	{"schema"},
	{"upgrade/pg"},
	{"upgrade/flow"},
}

const module = "crossfade/"

type listed struct {
	ImportPath string
	Imports    []string
}

// violations are the imports that break the rules.
func violations(packages []listed) []string {
	depth := map[string]int{}
	for i, line := range layers {
		for _, p := range line {
			depth[module+p] = i + 1
		}
	}
	var bad []string
	for _, p := range packages {
		from, product := depth[p.ImportPath], depth[p.ImportPath] > 0
		scenery := p.ImportPath == module+"cmd/lab" || strings.HasPrefix(p.ImportPath+"/", module+"scenarios/")
		if !product && !scenery {
			bad = append(bad, p.ImportPath+" has no place in the layers")
		}
		for _, i := range p.Imports {
			first, _, _ := strings.Cut(i, "/")
			switch {
			case product && strings.HasPrefix(i+"/", module+"scenarios/"):
				bad = append(bad, p.ImportPath+" imports "+i+", which is for cmd/lab and tests")
			case product && depth[i] > 0 && depth[i] <= from:
				bad = append(bad, fmt.Sprintf("%s imports %s, which is not below it", p.ImportPath, i))
			case p.ImportPath == module+"upgrade/flow" && strings.Contains(first, "."):
				bad = append(bad, p.ImportPath+" imports "+i+", and may import the standard library alone")
			}
		}
	}
	return bad
}

func TestImports(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var packages []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	if len(packages) < len(layers) {
		t.Fatalf("go list knows only %d packages", len(packages))
	}
	for _, v := range violations(packages) {
		t.Error(v)
	}
}

// A test that can only pass proves nothing.
func TestImportsSeesViolations(t *testing.T) {
	for from, to := range map[string]string{
		"upgrade/pg": "schema", "upgrade/load": "upgrade/verify", "cutover/traffic": "upgrade/link", "schema": "upgrade",
		"upgrade/check": "scenarios/lab", "cmd/crossfade": "scenarios", "util": "upgrade/flow", "upgrade/flow": "x/../github.com/jackc/pgx/v5",
	} {
		to = strings.TrimPrefix(module+to, module+"x/../")
		if len(violations([]listed{{module + from, []string{"fmt", to}}})) != 1 {
			t.Errorf("%s importing %s was not seen", from, to)
		}
	}
	for from, to := range map[string]string{"upgrade": "cutover", "cmd/lab": "scenarios", "scenarios": "scenarios/lab", "cutover": "upgrade/link"} {
		if v := violations([]listed{{module + from, []string{module + to}}}); len(v) > 0 {
			t.Errorf("%s importing %s is right, and was refused: %q", from, to, v)
		}
	}
}
