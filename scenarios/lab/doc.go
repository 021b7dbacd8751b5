// Package lab boots real PostgreSQL of several majors, with standbys, cascades and PgBouncer in front, and puts a load on
// it that can prove afterwards what became of every row. Nothing is mocked. It is for the demo and for tests; tests use it
// through package labtest, whose methods fail the test instead of returning errors.
//
// # Installations
//
// [Find] returns a complete PostgreSQL of a major version and [Program] a program such as pgbouncer. What the machine
// lacks is fetched once into the user's cache folder, without root: on Debian and Ubuntu from the machine's own package
// mirror, out of whatever suite has that major, unpacked with its own C library. CROSSFADE_PG_17=/path/to/bin names an
// installation, CROSSFADE_PGBOUNCER=/path a program, CROSSFADE_CACHE another cache folder. [Install.Wrap] makes a bin folder
// whose programs write down how they are called.
//
// # Servers
//
//	l, err := lab.New(ctx, lab.Config{})          // a folder; all in it ends with this process, even if that is killed
//	defer l.Down(ctx)
//	wacken, err := l.Start(ctx, lab.Options{Name: "wacken", Major: 15, Settings: map[string]string{"log_statement": "all"}})
//	metal, err := wacken.Standby(ctx, "metal", lab.StandbyOptions{})
//	power, err := metal.Standby(ctx, "power", lab.StandbyOptions{Delay: time.Hour})
//	pool, err := l.PgBouncer(ctx, lab.PoolOptions{Databases: map[string]lab.Backend{"shop": {Cluster: wacken}}})
//	place, err := l.Reserve(ctx, "metal18", 18, nil)   // for a server that crossfade builds: DataDir, Port, Settings
//
// Servers listen on 127.0.0.1 and on a socket, trust everybody there, and log to Home/log whoever starts them. Root runs
// them as the user postgres, or nobody. A [Cluster] can be stopped, killed as by a power cut, frozen as by a hanging
// machine, booted, promoted and asked; it is found by its data directory, so it does not matter who started it last.
// With Config.Keep the servers outlive the process, and [Down] ends them from another one.
//
// # Load and judgement
//
//	err = lab.Ledger(ctx, wacken.Conninfo("shop"))                     // the tables
//	w, err := lab.Write(ctx, pool.Conninfo("shop"), lab.WriterOptions{})
//	err = w.Flow(ctx, 1000)                                            // wait for a thousand more rows
//	…                                                                  // the upgrade
//	report := w.Stop()                                                 // report.Longest is the outage
//	verdict, err := lab.Judge(ctx, []lab.Report{report}, new.Conninfo("shop"), old.Conninfo("shop"))
//	err = verdict.Err()                                                // nil: every acknowledged row once, none aside
//
// [Read] runs queries without end and remembers the longest wait, [Cluster.Pgbench] runs pgbench, whose sums
// [Cluster.PgbenchSums] checks. A [Proxy] in front of a server cuts, resets and heals its connections, without root; its
// kernel still acknowledges what it drops, so TCP itself sees nothing: for a line that is truly dead there is [Network],
// which needs root.
package lab
