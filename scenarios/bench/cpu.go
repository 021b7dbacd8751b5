package bench

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ticks is how many a second /proc counts in: it is the same on every Linux
// that PostgreSQL runs on.
const ticks = 100

// cpu is how many seconds of processor the servers have taken, living and
// ended processes alike; 0 where there is no /proc.
func (p *place) cpu() float64 {
	postmasters := map[string]bool{}
	for _, pid := range []int{p.old.Pid(), p.new.Pid()} {
		postmasters[strconv.Itoa(pid)] = true
	}
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0
	}
	sum := 0
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended since
		}
		pid, _, _ := strings.Cut(string(b), " ")
		_, rest, ok := strings.Cut(string(b), ") ") // after its name: state, parent …
		f := strings.Fields(rest)
		if !ok || len(f) < 15 || !postmasters[pid] && !postmasters[f[1]] {
			continue
		}
		for _, field := range f[11:15] { // its own time, and that of children it has waited for
			if n, err := strconv.Atoi(field); err == nil {
				sum += n
			}
		}
	}
	return float64(sum) / ticks
}
