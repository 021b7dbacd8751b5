package survey

import (
	"context"

	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"

	"github.com/jackc/pgx/v5"
)

// Writable tells which side takes a client's write in every database.
func (s *Survey) Writable(ctx context.Context) report.Writable {
	old, oldErr := s.takesWrites(ctx, "old")
	fresh, newErr := s.takesWrites(ctx, "new")
	// A new cluster that this upgrade has not closed yet serves nobody.
	if s.Phase == report.PhaseNew || s.Phase == report.PhaseFinished && s.FenceOld != nil && !*s.FenceOld {
		fresh, newErr = false, nil
	}
	switch {
	case oldErr != nil || newErr != nil:
		// One side alone tells enough when it says that it is open.
		switch {
		case oldErr == nil && old:
			return report.WritableOld
		case newErr == nil && fresh && s.Phase != report.PhasePreparing:
			return report.WritableNew
		}
		return report.WritableUnknown
	case old && fresh:
		if s.Phase == report.PhasePreparing {
			return report.WritableOld // new is being made, and closed before rows arrive
		}
		return report.WritableBoth
	case old:
		return report.WritableOld
	case fresh:
		return report.WritableNew
	}
	return report.WritableNone
}

// takesWrites reports whether a side is a primary whose fence is open in every
// database of the upgrade.
func (s *Survey) takesWrites(ctx context.Context, side string) (bool, error) {
	if side == "old" && s.OldErr != nil {
		return false, s.OldErr
	}
	if side == "new" && s.NewErr != nil {
		return false, s.NewErr
	}
	if s.Side(side).Identity.InRecovery {
		return false, nil
	}
	for _, db := range s.Databases {
		up := false
		err := s.c.In(ctx, side, db.Name, func(conn *pgx.Conn) error {
			var err error
			up, err = s.c.Part.Up(ctx, conn)
			return err
		})
		if pg.SQLState(err) == "3D000" || up {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}
