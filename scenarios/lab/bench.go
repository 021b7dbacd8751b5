package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"syscall"
	"time"
)

// PgbenchOptions says how to run pgbench.
type PgbenchOptions struct {
	// Clients is how many connections. 0: 4.
	Clients int
	// Rate is how many transactions a second, all clients together. 0: as many as go.
	Rate int
	// Args come last, for example "-f", "script.sql".
	Args []string
}

// PgbenchInit fills a database with pgbench's tables; a scale of 1 is about 15 MB. Args come last, for example
// "--foreign-keys".
func (c *Cluster) PgbenchInit(ctx context.Context, db string, scale int, args ...string) error {
	all := append([]string{"-i", "-q", "-s", strconv.Itoa(scale)}, args...)
	if _, err := run(ctx, c.Command(ctx, "pgbench", append(all, c.Conninfo(db))...)); err != nil {
		return fmt.Errorf("%s: %w", c.Name, err)
	}
	return nil
}

// Pgbench is a pgbench that runs in the background.
type Pgbench struct {
	cmd  *exec.Cmd
	said said
	done chan struct{}
	err  error
}

// Pgbench starts pgbench's own transaction, over the simple protocol, without end, through whatever the connection string
// leads to. The program is this cluster's. It ends with Stop, or is killed when ctx ends.
func (c *Cluster) Pgbench(ctx context.Context, conninfo string, o PgbenchOptions) (*Pgbench, error) {
	args := []string{"-n", "-T", "1000000", "-M", "simple", "-c", strconv.Itoa(cmp.Or(o.Clients, 4))}
	if o.Rate > 0 {
		args = append(args, "-R", strconv.Itoa(o.Rate))
	}
	args = append(append(args, o.Args...), conninfo)
	b := &Pgbench{cmd: c.Command(ctx, "pgbench", args...), done: make(chan struct{})}
	b.cmd.Stdout, b.cmd.Stderr = &b.said, &b.said
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(b.done)
		b.err = b.cmd.Wait()
	}()
	return b, nil
}

// Output is what pgbench has printed until now: aborted clients are there at once, the summary is at the end.
func (b *Pgbench) Output() string { return b.said.String() }

// Running says whether it still does: pgbench ends by itself when all its clients were aborted.
func (b *Pgbench) Running() bool {
	select {
	case <-b.done:
		return false
	default:
		return true
	}
}

// PgbenchReport is what pgbench says of itself in the end.
type PgbenchReport struct {
	Transactions int64
	Failed       int64 // transactions
	Aborted      int   // clients, each by one error that pgbench does not retry; they are in Output
	Output       string
}

var (
	benchDone    = regexp.MustCompile(`number of transactions actually processed: (\d+)`)
	benchFailed  = regexp.MustCompile(`number of failed transactions: (\d+)`)
	benchAborted = regexp.MustCompile(`client \d+ (script \d+ )?aborted`)
)

// Stop lets the transactions in progress end and returns the summary. The error is for a pgbench that could not be
// stopped or printed no summary; clients that were aborted are in the report.
func (b *Pgbench) Stop() (PgbenchReport, error) {
	var err error
	if b.Running() {
		err = signal(b.cmd.Process.Pid, syscall.SIGALRM) // the end of -T
	}
	patience := time.NewTimer(30 * time.Second)
	defer patience.Stop()
	select {
	case <-b.done:
	case <-patience.C:
		err = errors.Join(err, errors.New("pgbench does not end"), b.cmd.Process.Kill())
		<-b.done
	}
	r := PgbenchReport{Output: b.Output()}
	r.Aborted = len(benchAborted.FindAllString(r.Output, -1))
	for what, into := range map[*regexp.Regexp]*int64{benchDone: &r.Transactions, benchFailed: &r.Failed} {
		if m := what.FindStringSubmatch(r.Output); m != nil {
			n, parse := strconv.ParseInt(m[1], 10, 64)
			err = errors.Join(err, parse)
			*into = n
		} else if what == benchDone {
			err = errors.Join(err, fmt.Errorf("pgbench: %w: %s", cmp.Or(b.err, errors.New("no summary")), tail(r.Output, 1000)))
		}
	}
	return r, err
}

// PgbenchSums checks what pgbench's transaction keeps equal: the sums over accounts, tellers, branches and the history's
// deltas. It returns that sum and the rows of the history.
func (c *Cluster) PgbenchSums(ctx context.Context, db string) (sum, history int64, err error) {
	rows, err := c.Query(ctx, db, `
		SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
			(SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history),
			(SELECT count(*) FROM pgbench_history)`)
	if err != nil {
		return 0, 0, err
	}
	r := rows[0]
	if r[0] != r[1] || r[0] != r[2] || r[0] != r[3] {
		return 0, 0, fmt.Errorf("%s: pgbench's sums differ: accounts %s, tellers %s, branches %s, history %s", c.Name, r[0], r[1], r[2], r[3])
	}
	if sum, err = strconv.ParseInt(r[0], 10, 64); err != nil {
		return 0, 0, err
	}
	history, err = strconv.ParseInt(r[4], 10, 64)
	return sum, history, err
}
