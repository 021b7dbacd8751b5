package pg

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"testing/iotest"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// stream is a net.Conn that only reads.
type stream struct {
	net.Conn
	io.Reader
}

func (s stream) Read(p []byte) (int, error) { return s.Reader.Read(p) }

func message(kind byte, body []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4)), body...)
}

// TestFrames: whatever comes in pieces of whatever size, the reader of messages
// sees the same bytes of rows in the same order, none larger than a piece, and all
// other messages as they were.
func TestFrames(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var sent, rows, others bytes.Buffer
	add := func(kind byte, n int) {
		body := make([]byte, n)
		for i := range body {
			body[i] = byte(rnd.Uint32())
		}
		sent.Write(message(kind, body))
		if kind == copyData {
			rows.Write(body)
		} else {
			others.Write(message(kind, body))
		}
	}
	for _, n := range []int{0, 1, piece - 1, piece, piece + 1, 2 * piece, 2*piece + 1, 3_000_000} {
		add(copyData, n)
		add('N', n%70_000) // a notice as long as a row is not cut
	}
	for range 2000 {
		add(copyData, int(rnd.Uint32N(200)))
	}
	add('Z', 1)
	for name, from := range map[string]io.Reader{
		"as it comes": bytes.NewReader(sent.Bytes()), "one byte at a time": iotest.OneByteReader(bytes.NewReader(sent.Bytes())), "halves": iotest.HalfReader(bytes.NewReader(sent.Bytes())),
	} {
		t.Run(name, func(t *testing.T) {
			var gotRows, gotOthers bytes.Buffer
			r := framed(stream{Reader: from})
			for {
				head := make([]byte, header)
				if _, err := io.ReadFull(r, head); err == io.EOF {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
				if _, err := io.ReadFull(r, body); err != nil {
					t.Fatal(err)
				}
				switch {
				case head[0] != copyData:
					gotOthers.Write(append(head, body...))
				case len(body) > piece:
					t.Fatalf("a message of %d bytes", len(body))
				default:
					gotRows.Write(body)
				}
			}
			if !bytes.Equal(gotRows.Bytes(), rows.Bytes()) || !bytes.Equal(gotOthers.Bytes(), others.Bytes()) {
				t.Errorf("%d bytes of rows of %d, %d of others of %d, or not the same ones", gotRows.Len(), rows.Len(), gotOthers.Len(), others.Len())
			}
		})
	}
}

// TestFramesDoNotWait: what has come is handed on although more is to come.
func TestFramesDoNotWait(t *testing.T) {
	near, far := net.Pipe()
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	go func() {
		_, _ = far.Write(append(message('Z', []byte{'I'}), copyData, 0)) // a message, and the begin of another
	}()
	f := pgproto3.NewFrontend(framed(near), nil)
	if err := near.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	m, err := f.Receive()
	if _, ok := m.(*pgproto3.ReadyForQuery); !ok || err != nil {
		t.Errorf("%s: %v", fmt.Sprintf("%T", m), err)
	}
}
