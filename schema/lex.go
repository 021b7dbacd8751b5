package schema

import "strings"

// token is a piece of SQL text as the server's scanner sees it, with
// standard_conforming_strings on.
type token struct {
	kind       tokenKind
	text       string // of a quoted identifier: without quotes
	start, end int    // bytes in the text
}

type tokenKind byte

const (
	word    tokenKind = 'w' // key word, number or plain identifier
	quoted  tokenKind = 'q' // "identifier"
	str     tokenKind = 's' // string constant of any form
	comment tokenKind = 'c' // -- to the end of the line, or /* */
	symbol  tokenKind = '.' // any other byte
)

// lex calls f for each token of sql until f returns false. It never fails:
// what is not closed reaches to the end of the text.
func lex(sql string, f func(token) bool) {
	for i := 0; i < len(sql); {
		c := sql[i]
		if c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '\f' || c == '\v' {
			i++
			continue
		}
		t := token{start: i}
		switch {
		case c == '\'':
			t.kind, t.end = str, endQuoted(sql, i+1, '\'', false)
		case c == '"':
			t.kind, t.end = quoted, endQuoted(sql, i+1, '"', false)
			t.text = strings.ReplaceAll(strings.TrimSuffix(sql[i+1:t.end], `"`), `""`, `"`)
		case strings.HasPrefix(sql[i:], "--"):
			t.kind, t.end = comment, endAt(sql, i, "\n")
		case strings.HasPrefix(sql[i:], "/*"):
			t.kind, t.end = comment, endComment(sql, i)
		case wordByte(c):
			t.kind, t.end = word, i+1
			for t.end < len(sql) && (wordByte(sql[t.end]) || sql[t.end] == '$') {
				t.end++
			}
			if t.end == i+1 && (c == 'E' || c == 'e') && t.end < len(sql) && sql[t.end] == '\'' {
				t.kind, t.end = str, endQuoted(sql, t.end+1, '\'', true)
			}
		case c == '$':
			t.kind, t.end = symbol, i+1
			if tag := dollarTag(sql[i:]); tag != "" {
				t.kind = str
				t.end = i + len(tag)
				t.end += endAt(sql[t.end:], 0, tag)
				if t.end < len(sql) && strings.HasPrefix(sql[t.end:], tag) {
					t.end += len(tag)
				}
			}
		default:
			t.kind, t.end = symbol, i+1
		}
		if t.kind != quoted {
			t.text = sql[t.start:t.end]
		}
		if !f(t) {
			return
		}
		i = t.end
	}
}

func wordByte(c byte) bool {
	return c == '_' || c >= 0x80 || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// endQuoted is after the closing quote of what begins at i.
func endQuoted(sql string, i int, quote byte, backslashes bool) int {
	for ; i < len(sql); i++ {
		switch {
		case backslashes && sql[i] == '\\':
			i++
		case sql[i] == quote && i+1 < len(sql) && sql[i+1] == quote:
			i++
		case sql[i] == quote:
			return i + 1
		}
	}
	return len(sql)
}

func endAt(sql string, i int, mark string) int {
	if n := strings.Index(sql[i:], mark); n >= 0 {
		return i + n
	}
	return len(sql)
}

func endComment(sql string, i int) int {
	depth := 0
	for ; i < len(sql); i++ {
		switch {
		case strings.HasPrefix(sql[i:], "/*"):
			depth++
			i++
		case strings.HasPrefix(sql[i:], "*/"):
			depth--
			i++
			if depth == 0 {
				return i + 1
			}
		}
	}
	return len(sql)
}

// dollarTag is the opening $tag$ at the start of s, or "".
func dollarTag(s string) string {
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '$':
			return s[:i+1]
		case !wordByte(c) || i == 1 && c >= '0' && c <= '9':
			return ""
		}
	}
	return ""
}

// statements cuts sql at top-level semicolons, each part with its semicolon
// and its tokens but comments. It is for looking at what pg_dump wrote, never
// for executing: a function with a body in SQL standard form has semicolons.
func statements(sql string) []statement {
	var out []statement
	var s statement
	lex(sql, func(t token) bool {
		if t.kind == comment {
			return true
		}
		if len(s.tokens) == 0 {
			s.start = t.start
			s.tokens = make([]token, 0, min((len(sql)-t.start)/4+1, 64))
		}
		s.tokens = append(s.tokens, t)
		s.end = t.end
		if t.text == ";" && t.kind == symbol {
			out = append(out, s)
			s = statement{}
		}
		return true
	})
	if len(s.tokens) > 0 {
		out = append(out, s)
	}
	return out
}

type statement struct {
	tokens     []token
	start, end int
}

// is says whether the statement's tokens from n on are these words or symbols,
// unquoted.
func (s statement) is(n int, words ...string) bool {
	if len(s.tokens) < n+len(words) {
		return false
	}
	for i, w := range words {
		if t := s.tokens[n+i]; t.kind == quoted || t.text != w {
			return false
		}
	}
	return true
}

// name reads a possibly qualified name at token n and returns its parts and
// the token after it.
func (s statement) name(n int) ([]string, int) {
	var parts []string
	for n < len(s.tokens) {
		t := s.tokens[n]
		if t.kind != word && t.kind != quoted {
			break
		}
		parts = append(parts, t.text)
		n++
		if !s.is(n, ".") {
			break
		}
		n++
	}
	return parts, n
}

// after is the index after the first top-level occurrence of these words, or -1.
func (s statement) after(words ...string) int {
	for n := range s.tokens {
		if s.is(n, words...) {
			return n + len(words)
		}
	}
	return -1
}
