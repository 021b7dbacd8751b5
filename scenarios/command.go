package scenarios

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// line is one line of crossfade's --json, as far as a play reads it.
type line struct {
	Type string `json:"type"`

	// step
	ID    string `json:"id"`
	Title string `json:"title"`
	// forecast
	Value *float64
	Unit  string
	// event
	Plan, Step, Kind string
	Error            *string
	Seconds          *float64
	// finding
	Level    string
	On       *string
	Object   *string
	Says     string
	Accepted bool
	// cutover
	FenceLSN map[string]string `json:"fence_lsn"`
	Blocked  *float64          `json:"blocked_seconds"`
	Steps    []StepTime        `json:"steps"`
	Refused  *int64            `json:"refused_writes"`
	Canaries int
	// error
	Exit int
	Hint *string
	// status
	Phase    string
	Writable string
	Links    []struct {
		State string
		Lag   *int64 `json:"lag_bytes"`
	}
	Standbys []struct{ Cluster, Name, State string }
	Next     string
}

// UnmarshalJSON takes a line whose says is a list, as left's, for one without.
func (l *line) UnmarshalJSON(b []byte) error {
	var t struct{ Type string }
	if err := json.Unmarshal(b, &t); err != nil {
		return err
	}
	switch t.Type {
	case "step", "event", "finding", "cutover", "error", "status":
		type plain line
		return json.Unmarshal(b, (*plain)(l))
	}
	l.Type = t.Type
	return nil
}

// StepTime is how long a step of a crossing took.
type StepTime struct {
	ID      string  `json:"id"`
	Seconds float64 `json:"seconds"`
}

// invocation is one run of the crossfade binary.
type invocation struct {
	words   []string // the command and its flags
	base    string   // stdout goes to base.jsonl, stderr to base.log
	exit    int
	seconds float64
	failed  *line // the line of type error
}

func (i *invocation) String() string { return "crossfade " + strings.Join(i.words, " ") }

// crossfade runs the binary with a runbook and --json, keeps what it prints and
// hands every line of its results to each, and of what it says beside them to
// say, from another goroutine. The error is for a binary that
// could not be run or understood, never for its exit code. Cancelling ctx
// interrupts it, and it has a minute to undo.
func crossfade(ctx context.Context, binary, runbook, base string, words []string, each func(line), say func(string)) (*invocation, error) {
	inv := &invocation{words: words, base: base}
	if err := os.MkdirAll(filepath.Dir(base), 0o755); err != nil {
		return nil, err
	}
	results, err := os.Create(base + ".jsonl")
	if err != nil {
		return nil, err
	}
	said, err := os.Create(base + ".log")
	if err != nil {
		return nil, errors.Join(err, results.Close())
	}
	args := append([]string{words[0], "-f", runbook, "--json"}, words[1:]...)
	cmd := exec.CommandContext(ctx, binary, args...)
	// A group of its own: a terminal's Ctrl-C reaches it once, from here.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = time.Minute
	cmd.Stderr = io.MultiWriter(said, &lineWriter{say: say})
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, results.Close(), said.Close())
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, results.Close(), said.Close())
	}
	read := inv.read(io.TeeReader(out, results), each)
	werr := cmd.Wait()
	inv.seconds = time.Since(began).Seconds()
	inv.exit = cmd.ProcessState.ExitCode()
	if _, exited := errors.AsType[*exec.ExitError](werr); exited {
		werr = nil
	}
	if err := errors.Join(read, werr, results.Close(), said.Close()); err != nil {
		return inv, fmt.Errorf("%s: %w", inv, err)
	}
	return inv, nil
}

// lineWriter hands on whole lines.
type lineWriter struct {
	say  func(string)
	rest []byte
}

func (w *lineWriter) Write(b []byte) (int, error) {
	w.rest = append(w.rest, b...)
	for {
		line, rest, whole := bytes.Cut(w.rest, []byte("\n"))
		if !whole {
			return len(b), nil
		}
		w.say(string(line))
		w.rest = rest
	}
}

func (i *invocation) read(from io.Reader, each func(line)) error {
	scan := bufio.NewScanner(from)
	scan.Buffer(nil, 64<<20) // the effects of a plan with many tables
	var bad error
	for scan.Scan() {
		var l line
		if err := json.Unmarshal(scan.Bytes(), &l); err != nil {
			bad = errors.Join(bad, fmt.Errorf("%q is no line of JSON: %w", cut(scan.Text(), 200), err))
			continue
		}
		if l.Type == "error" {
			i.failed = &l
		}
		each(l)
	}
	// Whatever is left is read, or the program would wait for its reader.
	_, err := io.Copy(io.Discard, from)
	return errors.Join(bad, scan.Err(), err)
}

// says wants what the program printed to match every pattern.
func (i *invocation) says(patterns []string) error {
	var text []byte
	for _, end := range []string{".jsonl", ".log"} {
		b, err := os.ReadFile(i.base + end)
		if err != nil {
			return err
		}
		text = append(text, b...)
	}
	var errs []error
	for _, p := range patterns {
		if !regexp.MustCompile(p).Match(text) { // the scenario was checked
			errs = append(errs, fmt.Errorf("%s does not say %q", i, p))
		}
	}
	return errors.Join(errs...)
}

// why is what the program said of its failure.
func (i *invocation) why() string {
	says := fmt.Sprintf("%s ended with %d", i, i.exit)
	if i.failed == nil {
		return says
	}
	says += ": " + i.failed.Says
	if h := i.failed.Hint; h != nil && *h != "" {
		says += " (hint: " + *h + ")"
	}
	return says
}

// Build builds the crossfade binary of this module into dir and returns its
// path. It needs the module's source around the working directory.
func Build(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "crossfade")
	out, err := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", path, "crossfade/cmd/crossfade").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build crossfade: %w\n%s", err, out)
	}
	return path, nil
}
