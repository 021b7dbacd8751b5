package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A Wrapper is a folder of scripts with the names of an installation's programs. Each writes down how it was called, and
// then becomes the program.
type Wrapper struct {
	// Install is the wrapped installation: as the old one, with another Bin.
	Install
	// Log is the file that the calls are written to, one JSON object a line.
	Log string
}

// A Call is one line of the log. There is no environment in it, so no password either.
type Call struct {
	At      time.Time `json:"at"`
	Program string    `json:"program"` // the name without its folder
	Args    []string  `json:"args"`    // argv after the program
	Pid     int       `json:"pid"`
}

// wrapperScript: awk gets the arguments as they are, whatever bytes they hold, and cat writes the line in one piece.
const wrapperScript = `#!/bin/sh
line=$(LC_ALL=C awk 'BEGIN {
	for (i = 1; i < 32; i++) code[sprintf("%%c", i)] = sprintf("\\u%%04x", i)
	code["\""] = "\\\""; code["\\"] = "\\\\"
	for (i = 1; i < ARGC; i++) {
		s = ""
		for (j = 1; j <= length(ARGV[i]); j++) {
			c = substr(ARGV[i], j, 1)
			s = s (c in code ? code[c] : c)
		}
		printf "%%s\"%%s\"", (i > 1 ? "," : ""), s
	}
}' "$@")
cat >>%[1]s <<CALL
{"at":"$(date -u +%%Y-%%m-%%dT%%H:%%M:%%S.%%NZ)","program":"%[2]s","pid":$$,"args":[$line]}
CALL
exec %[3]s "$@"
`

// Wrap makes such a folder at dir, which must not exist, for everybody's use. The log is calls.jsonl in it.
func (i *Install) Wrap(dir string) (*Wrapper, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(i.Bin)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	w := &Wrapper{Install: *i, Log: filepath.Join(dir, "calls.jsonl")}
	w.Bin = dir
	for path, mode := range map[string]os.FileMode{dir: 0o755, w.Log: 0o666} {
		if path == w.Log {
			if err := os.WriteFile(path, nil, mode); err != nil {
				return nil, err
			}
		}
		if err := os.Chmod(path, mode); err != nil { // past the umask: the servers' user writes here too
			return nil, err
		}
	}
	for _, e := range entries {
		real := i.Program(e.Name())
		if executable(real) != nil {
			continue
		}
		script := fmt.Sprintf(wrapperScript, shellQuote(w.Log), e.Name(), shellQuote(real))
		path := filepath.Join(dir, e.Name())
		if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
			return nil, err
		}
		if err := os.Chmod(path, 0o755); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// Calls reads the log, in the order in which the programs were called.
func (w *Wrapper) Calls() ([]Call, error) {
	b, err := os.ReadFile(w.Log)
	if err != nil {
		return nil, err
	}
	var calls []Call
	for line := range strings.Lines(string(b)) {
		var c Call
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			return calls, fmt.Errorf("%s: %q: %w", w.Log, line, err)
		}
		calls = append(calls, c)
	}
	return calls, nil
}
