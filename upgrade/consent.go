package upgrade

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"crossfade/cutover"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/runbook"
)

// consent is what the runbook wants to be given before a crossing begins: its
// window, and an approval.
type consent struct{ runbook.Cutover }

func (u *Upgrade) consent() consent { return consent{u.rb.Cutover} }

// outside refuses what begins outside its window, unless it waits for it or
// ignores it.
func (a consent) outside(o CutoverOptions) error {
	w := a.window()
	if o.Granted || o.Now || o.Wait || w.Open(time.Now()) {
		return nil
	}
	from, to := w.Next(time.Now(), a.MaxBlocked)
	if from.IsZero() {
		return exit.Refused("make cutover.window longer than cutover.max_blocked, or give --now", "outside the window, and no window of the next year is long enough")
	}
	return exit.Refused("--wait waits for it, --now ignores it", "outside the window; the next one is %s to %s", from.Format(time.RFC3339), to.Format(time.RFC3339))
}

// ask asks the window and the approval, before anything is touched.
func (a consent) ask(ctx context.Context, o CutoverOptions) error {
	if o.Granted {
		return nil
	}
	if err := a.outside(o); err != nil {
		return err
	}
	if w := a.window(); !o.Now && !w.Open(time.Now()) {
		from, _ := w.Next(time.Now(), a.MaxBlocked)
		if err := sleepUntil(ctx, from); err != nil {
			return err
		}
	}
	switch a.Approve {
	case runbook.ApproveAuto:
		return nil
	case runbook.ApprovePrompt:
		if !o.Approved {
			return exit.Refused("type the upgrade's name when asked, or give --yes", "not approved")
		}
		return nil
	}
	return a.byFile(ctx, o)
}

// byFile wants a file newer than the command's start, and uses it up.
func (a consent) byFile(ctx context.Context, o CutoverOptions) error {
	path := a.ApproveFile
	waiting, cancel := context.WithTimeoutCause(ctx, a.Patience, cutover.ErrPatience)
	defer cancel()
	err := pg.Poll(waiting, 200*time.Millisecond, "the approval "+path, func(context.Context) (bool, error) {
		given, _, err := approval(path, o.Started)
		return given, err
	})
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		return &exit.Error{Code: exit.Gate, Says: "not approved: " + err.Error() + "; nothing was changed", Hint: "touch " + path + " while the command waits; a file older than the command does not count", Err: err}
	}
	return useApproval(path)
}

// approval reports whether the file is there and newer than the command's
// start, and whether it is there and older.
func approval(path string, started time.Time) (given, older bool, err error) {
	st, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, false, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("look for the approval: %w", err)
	}
	given = st.ModTime().After(started)
	return given, !given, nil
}

// useApproval takes the approval away, so that it counts once.
func useApproval(path string) error {
	if err := os.Rename(path, path+".used"); err != nil {
		return fmt.Errorf("use the approval %s up: %w", filepath.Base(path), err)
	}
	return nil
}

func (a consent) window() cutover.Window {
	w := a.Window
	return cutover.Window{Zone: w.Zone, Days: w.Days, From: w.From, To: w.To}
}

func sleepUntil(ctx context.Context, at time.Time) error {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
