package check

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/pg"

	"github.com/dustin/go-humanize"
	"github.com/jackc/pgx/v5"
)

var diskChecks = []Check{
	{ID: "old-disk", Title: "Old's disk holds the WAL that is kept during the copy", Levels: blockWarn, Acceptable: true, Judge: judgeOldDisk},
	{ID: "new-disk", Title: "New's disk holds what is copied", Levels: blockWarn, Acceptable: true, Judge: judgeNewDisk},
	{ID: "disk-unknown", Title: "Free disk space is known", Levels: onlyNote, Acceptable: true, Judge: judgeDiskUnknown},
}

// Machine is what was asked of the machine that a server runs on.
type Machine struct {
	Asked bool // the runbook gives its host
	// WAL and Data are the file systems of pg_wal and of the data directory;
	// nil is not known.
	WAL, Data *Disk
	Cores     int // 0 is not known
}

// Disk is a file system.
type Disk struct {
	Path string // that was asked for
	Free int64  // bytes that are left for who is not root
}

// size is a number of bytes as PostgreSQL writes them.
func size(n int64) string {
	return strings.NewReplacer("KiB", "kB", "iB", "B").Replace(humanize.IBytes(uint64(max(n, 0))))
}

const machineTimeout = 10 * time.Second

// readMachine asks the machine of a primary, where the runbook says how.
func (g *gathering) readMachine(ctx context.Context, s *Server, host pg.Host) Machine {
	if host == nil || !s.ok() {
		return Machine{}
	}
	m := Machine{Asked: true}
	data := s.setting("data_directory")
	ctx, cancel := context.WithTimeoutCause(ctx, machineTimeout, fmt.Errorf("no answer within %s", machineTimeout))
	defer cancel()
	var err error
	if m.Data, err = free(ctx, host, data, data); err == nil {
		m.WAL, err = free(ctx, host, data+"/pg_wal", data)
	}
	if err != nil {
		g.missing(s.Side, "", "free disk space", err, false)
	}
	var out bytes.Buffer
	if host.Run(ctx, pg.Cmd{Args: []string{"nproc"}, Stdout: &out}) == nil { // without it sets are judged by their number
		m.Cores, _ = strconv.Atoi(strings.TrimSpace(out.String()))
	}
	return m
}

// dfLine is the line of df -P below its head: blocks of 1024 bytes in all,
// used and available. Names on both sides of the numbers may hold blanks.
var dfLine = regexp.MustCompile(`\s(\d+)\s+(\d+)\s+(\d+)\s+\d+%\s`)

func free(ctx context.Context, host pg.Host, path, owner string) (*Disk, error) {
	var out bytes.Buffer
	if err := host.Run(ctx, pg.Cmd{Args: []string{"df", "-P", "-k", "--", path}, Owner: owner, Env: []string{"LC_ALL=C"}, Stdout: &out}); err != nil {
		return nil, fmt.Errorf("ask %s how much of %s is free: %w", host.Name(), path, err)
	}
	m := dfLine.FindStringSubmatch(out.String())
	if m == nil {
		return nil, fmt.Errorf("df on %s says of %s: %q", host.Name(), path, out.String())
	}
	kB, err := strconv.ParseInt(m[3], 10, 64)
	if err != nil {
		return nil, err
	}
	return &Disk{Path: path, Free: kB << 10}, nil
}

// mostWAL is how much WAL the slots of this upgrade may keep on old: what the
// runbook says, or the server's own limit where that is less.
func (f *Facts) mostWAL() int64 {
	most := f.Want.MaxWAL
	if f.Old.has("max_slot_wal_keep_size") {
		if mb := f.Old.number("max_slot_wal_keep_size"); mb >= 0 {
			most = min(most, mb<<20)
		}
	}
	return most
}

// judgeOldDisk: WAL is kept from the first slot on until new has caught up. A
// full disk there stops old.
func judgeOldDisk(f *Facts) []Finding {
	disk := f.OldMachine.WAL
	if !f.Old.ok() || disk == nil || f.Want.MaxWAL <= 0 {
		return nil
	}
	most := f.mostWAL()
	// What checkpoints let WAL grow to anyway, twice.
	floor := 2 * f.Old.number("max_wal_size") << 20
	if disk.Free >= max(most, floor) {
		return nil
	}
	out := Finding{
		Level: Warn, On: OnOld, Object: disk.Path,
		Says: fmt.Sprintf("%s are free in %s, and the slots may keep up to %s of WAL there (catchup.max_wal) before they are given up: the disk would be full first, and old would stop",
			size(disk.Free), disk.Path, size(most)),
		Fix: fmt.Sprintf("in the runbook: catchup: {max_wal: %dMB}, or make room there", max(disk.Free/2>>20, 16)),
	}
	if disk.Free < floor {
		out.Level = Block
		out.Says = fmt.Sprintf("only %s are free in %s: not even twice max_wal_size, which WAL grows to anyway. What the slots keep during the copy would fill that disk, and old would stop",
			size(disk.Free), disk.Path)
		out.Fix = fmt.Sprintf("make room there: %s at least, better all of catchup.max_wal (%s)", size(floor), size(f.Want.MaxWAL))
	}
	return []Finding{out}
}

// readBytes reads how big what is moved of a database is: all of it but the
// tables that are excluded. Asking every table would take longer than all the
// rest.
func (d *DatabaseFacts) readBytes(ctx context.Context, conn *pgx.Conn, inv *schema.Inventory) error {
	var excluded []uint32
	for _, t := range inv.Tables {
		if t.Excluded {
			excluded = append(excluded, t.OID)
		}
	}
	return conn.QueryRow(ctx, `SELECT pg_database_size(current_database()) - coalesce((SELECT sum(pg_total_relation_size(o))::bigint FROM unnest($1::oid[]) o), 0)`, excluded).Scan(&d.Bytes)
}

// judgeNewDisk: rows and indexes take on new what they take on old, without
// its bloat, and the WAL of writing them comes on top.
func judgeNewDisk(f *Facts) []Finding {
	disk := f.NewMachine.Data
	if !f.both() || disk == nil || f.begun() {
		return nil
	}
	var rows int64
	for _, d := range f.Databases {
		rows += d.Bytes
	}
	needs := rows + 2*f.New.number("max_wal_size")<<20
	if disk.Free >= needs+rows/5 {
		return nil
	}
	out := Finding{
		Level: Warn, On: OnNew, Object: disk.Path,
		Says: fmt.Sprintf("%s are free in %s, and the tables and indexes that are copied take %s on old, with WAL on top: it may just fit",
			size(disk.Free), disk.Path, size(rows)),
		Fix: fmt.Sprintf("make room there: %s", size(needs+rows/5)),
	}
	if disk.Free < needs {
		out.Level = Block
		out.Says = fmt.Sprintf("%s are free in %s, and the tables and indexes that are copied take %s on old: the copy would fill that disk",
			size(disk.Free), disk.Path, size(rows))
	}
	return []Finding{out}
}

func judgeDiskUnknown(f *Facts) []Finding {
	var out []Finding
	if f.Old.ok() && !f.OldMachine.Asked && f.Want.MaxWAL > 0 {
		out = append(out, Finding{
			Level: Note, On: OnOld, Object: "host",
			Says: fmt.Sprintf("it is not known how much disk is free on old, where the slots may keep up to %s of WAL: the runbook gives no host for it", size(f.mostWAL())),
			Fix:  fmt.Sprintf("look there yourself (df -h %s/pg_wal), or give old.host in the runbook", f.Old.setting("data_directory")),
		})
	}
	if f.New.ok() && !f.NewMachine.Asked && !f.begun() {
		out = append(out, Finding{
			Level: Note, On: OnNew, Object: "host",
			Says: "it is not known how much disk is free on new, which takes a copy of everything: the runbook gives no host for it",
			Fix:  fmt.Sprintf("look there yourself (df -h %s), or give host: of that cluster in the runbook", f.New.setting("data_directory")),
		})
	}
	return out
}
