package schema

// FingerprintSQL are cheap queries, each of which returns a text, that tell
// together the fingerprint of the schema of the connected database, for a server
// of version (server_version_num). They may run in several sessions at a time: a
// change is seen if it was committed before the first of them began. What they
// return stays equal while no DDL is committed, whatever is written, truncated, vacuumed, analyzed or put into temporary tables; any DDL
// changes it, also one that is undone by another. The tool's own objects
// are left out. It tells two moments of one cluster apart (or of its promoted
// standby), never two clusters, and no two spellings of the query.
//
// Commands on names, comments and ordinary VACUUM FULL or REFRESH do not count;
// REINDEX CONCURRENTLY does.
func FingerprintSQL(version int) []string {
	return []string{query("fingerprint_columns", version), query("fingerprint", version)}
}
