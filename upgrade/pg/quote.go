package pg

import (
	"strings"

	"github.com/jackc/pgx/v5"
)

// Ident quotes an identifier; with several parts, a qualified one.
func Ident(parts ...string) string { return pgx.Identifier(parts).Sanitize() }

// Literal quotes a string constant, whatever standard_conforming_strings is.
func Literal(s string) string {
	s = strings.ReplaceAll(s, "\x00", "")
	q := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, `\`) {
		return " E" + strings.ReplaceAll(q, `\`, `\\`)
	}
	return q
}

// Spelled is sql as a server of version (server_version_num) takes it: before
// 12 there is no AS MATERIALIZED, and every WITH query is.
func Spelled(sql string, version int) string {
	if version >= 120000 {
		return sql
	}
	return strings.ReplaceAll(sql, " AS MATERIALIZED (", " AS (")
}
