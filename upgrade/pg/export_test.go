package pg

import "time"

// SetBeat sets how long connections that are made from here on wait for a silent
// server, and returns what puts it back.
func SetBeat(silence, answer time.Duration) (restore func()) {
	before := beat
	beat = pulse{silence: silence, answer: answer}
	return func() { beat = before }
}
