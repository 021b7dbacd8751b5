package flow

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// ErrHeld says that another process holds the journal.
var ErrHeld = errors.New("another crossfade run is active on this upgrade")

// ErrOther says that a journal was written for another plan.
var ErrOther = errors.New("the journal belongs to another upgrade")

// Journal is what a run remembers: JSON lines, each flushed to disk before the
// step goes on, in a file that one process at a time holds. It is a memory,
// not the truth: every command works without it. A nil *Journal remembers
// nothing and is safe to use.
type Journal struct {
	mu      sync.Mutex
	f       *os.File
	records []Record
}

// Record is one line of the journal.
type Record struct {
	At          time.Time       `json:"at"`
	Fingerprint string          `json:"fingerprint,omitempty"` // only in the first line
	Cluster     string          `json:"cluster,omitempty"`
	Plan        string          `json:"plan,omitempty"`
	Attempt     int             `json:"attempt,omitempty"`
	Step        string          `json:"step,omitempty"`
	Kind        Kind            `json:"kind,omitempty"` // begin, end, skip, fail, undone, memory, phase
	Seconds     float64         `json:"seconds,omitempty"`
	Forecast    float64         `json:"forecast_seconds,omitempty"` // begin: what it was expected to take
	Beside      string          `json:"beside,omitempty"`           // begin: steps with the same one are in work together
	Error       string          `json:"error,omitempty"`
	Memory      json.RawMessage `json:"memory,omitempty"`
}

const memoryKind Kind = "memory"

// Open opens or creates the journal at path and holds it until Close.
// fingerprint is what shapes the plan (system identifiers, sets, tables); ""
// accepts any, and a journal without one takes it over. Errors: ErrHeld,
// ErrOther (wrapped), or what the file system says. A torn last line, the mark
// of a crash, is cut off.
func Open(path, fingerprint string) (*Journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	j := &Journal{f: f}
	if err := j.open(fingerprint); err != nil {
		return nil, errors.Join(fmt.Errorf("journal %s: %w", path, err), f.Close())
	}
	return j, syncDir(filepath.Dir(path))
}

func (j *Journal) open(fingerprint string) error {
	if err := syscall.Flock(int(j.f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return ErrHeld
		}
		return err
	}
	b, err := io.ReadAll(j.f)
	if err != nil {
		return err
	}
	var whole int64
	j.records, whole, err = decode(b)
	if err != nil {
		return err
	}
	if err := j.f.Truncate(whole); err != nil {
		return err
	}
	if _, err := j.f.Seek(whole, io.SeekStart); err != nil {
		return err
	}
	had := ""
	for _, r := range j.records {
		if r.Fingerprint != "" {
			had = r.Fingerprint
		}
	}
	switch {
	case fingerprint == "" || had == fingerprint:
		return nil
	case had != "":
		return fmt.Errorf("%w (it has fingerprint %s, this run %s); give another journal: in the runbook, or move the file", ErrOther, had, fingerprint)
	}
	return j.append(Record{Fingerprint: fingerprint})
}

// decode reads whole lines; a last line without its end, or that is no JSON,
// is torn and left out. A broken line elsewhere is an error.
func decode(b []byte) (records []Record, whole int64, err error) {
	for n := 1; len(b) > 0; n++ {
		line, rest, ended := bytes.Cut(b, []byte("\n"))
		var r Record
		if jerr := json.Unmarshal(line, &r); !ended || jerr != nil {
			if len(rest) > 0 {
				return nil, 0, fmt.Errorf("line %d is damaged: %w", n, jerr)
			}
			break
		}
		records = append(records, r)
		whole += int64(len(line)) + 1
		b = rest
	}
	return records, whole, nil
}

// Peek reads the records of the journal at path without holding it. A file
// that does not exist has none.
func Peek(path string) ([]Record, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	records, _, err := decode(b)
	if err != nil {
		return nil, fmt.Errorf("journal %s: %w", path, err)
	}
	return records, nil
}

// Records returns a copy of what the journal holds.
func (j *Journal) Records() []Record {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]Record(nil), j.records...)
}

// Close lets the journal go.
func (j *Journal) Close() error {
	if j == nil {
		return nil
	}
	return j.f.Close()
}

func (j *Journal) append(r Record) error {
	if j == nil {
		return nil
	}
	r.At = time.Now().UTC()
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.f.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	if err := j.f.Sync(); err != nil {
		return fmt.Errorf("flush the journal: %w", err)
	}
	j.records = append(j.records, r)
	return nil
}

func (j *Journal) record(p Plan, e Event) error {
	r := Record{Cluster: p.Cluster, Plan: p.Name, Attempt: p.Attempt, Step: e.Step, Kind: e.Kind, Seconds: e.Took.Seconds()}
	if e.Kind == Begin {
		r.Forecast, r.Beside = e.Forecast.Seconds(), e.Beside
	}
	if e.Err != nil {
		r.Error = e.Err.Error()
	}
	return j.append(r)
}

// ended reports whether the last word on a step is that it ended.
func (j *Journal) ended(p Plan, step string) bool {
	if j == nil {
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := len(j.records) - 1; i >= 0; i-- {
		r := j.records[i]
		if r.Cluster == p.Cluster && r.Plan == p.Name && r.Attempt == p.Attempt && r.Step == step && r.Kind != memoryKind {
			return r.Kind == End || r.Kind == Skip
		}
	}
	return false
}

func (j *Journal) memory(p Plan, step string) Memory {
	if j == nil {
		return &volatile{}
	}
	return &durable{j: j, cluster: p.Cluster, plan: p.Name, attempt: p.Attempt, step: step}
}

// durable is a step's memory in the journal.
type durable struct {
	j       *Journal
	cluster string
	plan    string
	attempt int
	step    string
}

func (m *durable) Load(v any) (bool, error) {
	m.j.mu.Lock()
	defer m.j.mu.Unlock()
	for i := len(m.j.records) - 1; i >= 0; i-- {
		r := m.j.records[i]
		if r.Cluster == m.cluster && r.Plan == m.plan && r.Attempt == m.attempt && r.Step == m.step && r.Kind == memoryKind {
			return true, json.Unmarshal(r.Memory, v)
		}
	}
	return false, nil
}

func (m *durable) Save(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("remember %s: %w", m.step, err)
	}
	return m.j.append(Record{Cluster: m.cluster, Plan: m.plan, Attempt: m.attempt, Step: m.step, Kind: memoryKind, Memory: b})
}

// volatile is a step's memory where there is no journal.
type volatile struct{ b []byte }

func (m *volatile) Load(v any) (bool, error) {
	if m.b == nil {
		return false, nil
	}
	return true, json.Unmarshal(m.b, v)
}

func (m *volatile) Save(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	m.b = b
	return nil
}

// lenient is a memory whose journal may be unwritable: it then remembers for as
// long as the process lives, and reports it to refused.
type lenient struct {
	Memory
	here    *volatile // nil: nothing was refused
	refused func(error)
}

func (m *lenient) Load(v any) (bool, error) {
	if m.here != nil {
		return m.here.Load(v)
	}
	return m.Memory.Load(v)
}

func (m *lenient) Save(v any) error {
	if m.here == nil {
		err := m.Memory.Save(v)
		if err == nil {
			return nil
		}
		m.refused(err)
		m.here = &volatile{}
	}
	return m.here.Save(v)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
