package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"crossfade/upgrade"
	"crossfade/upgrade/check"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/report"
	"crossfade/upgrade/runbook"
	"crossfade/upgrade/verify"
)

// readRunbook reads the runbook that o names and tells its warnings.
func readRunbook(o common, out *output) (*runbook.Runbook, error) {
	rb, warnings, err := runbook.Read(o.runbook)
	for _, w := range warnings {
		out.sayf("%s", w)
	}
	return rb, err
}

// with opens the upgrade of rb, runs f and closes it again.
//
// A panic that reaches this point was caught by nobody who could undo: what it
// means is asked of the servers. behind is the phase that lies after the
// command's point of no return; "" where it has none.
func with(ctx context.Context, rb *runbook.Runbook, behind report.Phase, f func(*upgrade.Upgrade) error) error {
	u, err := upgrade.Open(ctx, rb)
	if err != nil {
		return err
	}
	err = protect(func() error { return f(u) })
	var c *crash
	if errors.As(err, &c) {
		err = crashed(ctx, u, behind, err)
	}
	return errors.Join(err, u.Close())
}

// crashed is what a panic means: 6 where the servers say that the point of no
// return was passed, else 1. It is never 5, because nothing has been undone;
// the sessions that held locks end with the process.
func crashed(ctx context.Context, u *upgrade.Upgrade, behind report.Phase, err error) error {
	e := &exit.Error{
		Code: exit.Failed, Says: err.Error(), Err: err,
		Hint: "crossfade status says where it stands; run the same command again to go on",
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	st, serr := u.Status(ctx)
	if serr == nil && behind != "" && st.Phase == behind {
		e.Code = exit.AfterOpen
	}
	return e
}

// nextIs tells a person what became of the command and what to type next. The
// command has done its work: a status that cannot be had changes nothing.
func nextIs(ctx context.Context, u *upgrade.Upgrade, says string, out *output) error {
	if out.json {
		return nil
	}
	if st, err := u.Status(ctx); err == nil {
		says += "\n" + st.NextText()
	}
	if says = strings.TrimSpace(says); says == "" {
		return nil
	}
	return out.result(nil, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, says)
		return err
	})
}

// findings are check's as lines.
func findings(all []check.Finding) []report.Finding {
	all = check.Group(all)
	out := make([]report.Finding, len(all))
	for i, f := range all {
		out[i] = report.Finding{
			ID: f.ID, Level: string(f.Level), On: f.On, Database: f.Database, Object: f.Object, Objects: f.Objects, Says: f.Says, Fix: f.Fix,
			Accepted: f.Accepted, Acceptable: f.Acceptable,
		}
		if f.Table != nil {
			out[i].Grid = &report.Grid{Columns: f.Table.Columns, Rows: f.Table.Rows}
		}
	}
	return out
}

// tableOf is verify's result as a line.
func tableOf(r verify.Result) report.Table {
	t := report.Table{Database: r.Database, Table: r.Table, Skipped: r.Skipped}
	if r.Rows < 0 {
		return t // not compared: nothing is known of it
	}
	t.Rows, t.Ranges = &r.Rows, &r.Ranges
	t.Differing = append([]string{}, r.Differing...)
	// What is neither equal nor differs anywhere was not settled.
	if r.Equal || len(r.Differing) > 0 {
		t.Equal = &r.Equal
	}
	if r.LSN != 0 {
		t.LSN = &r.LSN
	}
	return t
}
