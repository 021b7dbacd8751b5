package monkey

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// book is the history of a run as a file: one JSON object a line, at seconds
// since it began.
type book struct {
	mu    sync.Mutex
	began time.Time
	file  *os.File
}

func (b *book) note(what string, pairs ...string) {
	m := map[string]any{"at": time.Since(b.began).Seconds(), "what": what}
	for i := 0; i+1 < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	_ = json.NewEncoder(b.file).Encode(m) // evidence; the disk is not under test
}

// answers writes every answer that clients got, in the order in which it ended.
func writeAcks(to io.Writer, acks []ack) error {
	for _, a := range acks {
		if _, err := fmt.Fprintf(to, "%s\t%s\t%s\t%s\t%v\n", clock(a.start), clock(a.end), a.client, a.side, a.values); err != nil {
			return err
		}
	}
	return nil
}
