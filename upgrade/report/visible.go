package report

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Visible is text as a person may be shown it, on a terminal, in a log and on a
// page: whatever would act on the terminal, reorder or hide what is read stands
// in it as an escape (\x1b, \u202e), but for line breaks and tabs. Names,
// comments, queries and messages of a server can hold anything; whoever may
// create a table must not be able to write "nothing was found" on the screen of
// the one who runs check. It returns text itself where there is nothing to
// escape.
func Visible(text []byte) []byte {
	at := bytes.IndexFunc(text, hidden)
	if at < 0 {
		return text
	}
	out := append(make([]byte, 0, len(text)+32), text[:at]...)
	for at < len(text) {
		r, n := utf8.DecodeRune(text[at:])
		switch {
		case r == utf8.RuneError && n <= 1:
			out = fmt.Appendf(out, `\x%02x`, text[at])
		case r == utf8.RuneError || !hidden(r): // U+FFFD itself hides nothing
			out = append(out, text[at:at+n]...)
		case r < 0x100:
			out = fmt.Appendf(out, `\x%02x`, r)
		case r < 0x10000:
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			out = fmt.Appendf(out, `\U%08x`, r)
		}
		at += n
	}
	return out
}

// VisibleText is Visible of a string.
func VisibleText(s string) string { return string(Visible([]byte(s))) }

// hidden reports whether a rune is not what it looks like: control characters
// of both sets, what has no width or changes the direction (category Cf, which
// has the bidirectional controls), line and paragraph separators, and bytes
// that are no UTF-8.
func hidden(r rune) bool {
	switch r {
	case '\n', '\t':
		return false
	case utf8.RuneError:
		return true
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}

// Some are the first names of a list, for a sentence.
func Some(names []string) string {
	if len(names) > 5 {
		return strings.Join(names[:5], ", ") + fmt.Sprintf(" and %d more", len(names)-5)
	}
	return strings.Join(names, ", ")
}
