package bench

import (
	"cmp"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// spent is the processor time of one function, its callees left out.
type spent struct {
	function string
	seconds  float64
}

// kinds of work, by what the names of functions begin with; the first that
// matches counts.
var kinds = []struct {
	name     string
	prefixes []string
}{
	{name: "decoding of rows and values", prefixes: []string{"github.com/jackc/pgx/v5/pgtype.", "github.com/jackc/pgx/v5.(*baseRows)", "encoding/", "strconv.", "reflect."}},
	{name: "system calls", prefixes: []string{"internal/runtime/syscall", "syscall.", "internal/poll.", "net.", "runtime.futex", "runtime.epoll"}},
	{name: "messages of the protocol", prefixes: []string{"github.com/jackc/pgx/v5/pgproto3.", "github.com/jackc/pgx/v5/pgconn.", "github.com/jackc/pgx/v5/internal/", "github.com/jackc/pgx/v5."}},
	{name: "moving bytes", prefixes: []string{"runtime.memmove", "runtime.memclr", "bufio.", "io.", "bytes.", "crossfade/upgrade/load.(*counter)", "crossfade/upgrade/load.pipe", "crossfade/upgrade/load.(*loader).stream"}},
	{name: "Go's runtime", prefixes: []string{"runtime.", "runtime/", "internal/", "sync", "gogo", "aeshash"}},
}

// profiles takes the CPU profile of the tool while it copies.
func (b *bench) profiles(ctx context.Context) (r *Report, err error) {
	old, err := b.oldCluster(ctx)
	if err != nil {
		return nil, err
	}
	const db = "bench"
	bytes, err := fill(ctx, old, db, plain, b.MB)
	if err != nil {
		return nil, err
	}
	c := competitors[0]
	c.script = `export CROSSFADE_CPUPROFILE="$DIR/../cpu.profile"
` + c.script
	got, err := b.lap(ctx, old, db, plain, b.MB, c)
	if err != nil {
		return nil, err
	}
	profile := filepath.Join(b.dir, "cpu.profile")
	top, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", "-nodecount=1000000", "-nodefraction=0", "-unit=ms", b.Binary, profile).Output()
	if err != nil {
		return nil, fmt.Errorf("read the profile (it needs go): %w", err)
	}
	all := readTop(string(top))
	sum, by := 0.0, map[string]float64{}
	for _, s := range all {
		sum += s.seconds
		by[kindOf(s.function)] += s.seconds
	}
	if sum == 0 {
		return nil, fmt.Errorf("nothing can be read from the profile: %s", last(string(top)))
	}
	r = &Report{
		Title: "What the tool does while it copies", Once: true,
		Says: []string{fmt.Sprintf("A CPU profile of the whole command on the data set of the copy, %s: %.2f s of processor in the tool, of %.2f s that both servers and the tool took. Rows go from one server to the other as they come: nothing but what the tool asks for itself is decoded.", megabytes(bytes), sum, got.CPU)},
		Tables: []Table{
			{Header: []string{"kind of work", "processor", "of the tool's"}},
			{Title: "The ten functions that take most:", Header: []string{"function", "processor", "of the tool's"}},
		},
		Commands: []Command{{"profile", c.script + "\n" + `go tool pprof -top crossfade cpu.profile`}},
	}
	for _, k := range append(kindNames(), otherKind) {
		r.Tables[0].Rows = append(r.Tables[0].Rows, []string{k, fmt.Sprintf("%.2f s", by[k]), percent(by[k], sum)})
	}
	for _, s := range all[:min(10, len(all))] {
		r.Tables[1].Rows = append(r.Tables[1].Rows, []string{"`" + s.function + "`", fmt.Sprintf("%.2f s", s.seconds), percent(s.seconds, sum)})
	}
	return r, old.Exec(ctx, "", "DROP DATABASE "+db)
}

const otherKind = "other"

func kindNames() []string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

func kindOf(function string) string {
	for _, k := range kinds {
		for _, p := range k.prefixes {
			if strings.HasPrefix(function, p) {
				return k.name
			}
		}
	}
	return otherKind
}

func percent(part, whole float64) string { return fmt.Sprintf("%.1f %%", 100*part/whole) }

// readTop reads what go tool pprof -top -unit=ms prints, largest first:
// "flat flat% sum% cum cum% function".
func readTop(text string) []spent {
	var all []spent
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 6 {
			continue
		}
		ms, err := strconv.ParseFloat(strings.TrimSuffix(f[0], "ms"), 64)
		if err != nil || ms == 0 {
			continue
		}
		all = append(all, spent{strings.Join(f[5:], " "), ms / 1000})
	}
	slices.SortStableFunc(all, func(a, b spent) int { return cmp.Compare(b.seconds, a.seconds) })
	return all
}
