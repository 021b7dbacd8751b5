package pg

import (
	"bufio"
	"encoding/binary"
	"net"
)

// frames is a connection to a server that sends CopyData messages of any size, a
// row each, up to a gigabyte. Whoever reads from it gets them in messages of no
// more than piece, which mean the same: pgconn holds a whole message in memory,
// twice while it grows. All other messages pass as they are.
// https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-COPY
type frames struct {
	net.Conn
	from *bufio.Reader
	head []byte // of a message that was made here; still to be handed on
	left int    // bytes of a message that may be handed on as they come
	big  int    // bytes of a large CopyData message that have no message of theirs yet
}

// piece is what pgconn itself puts into one CopyData message.
const piece = 65536 - header

// header is the length of a message's type and size.
const header = 5

// framed is conn with large messages cut. It reads more at once than pgconn does.
func framed(conn net.Conn) net.Conn {
	return &frames{Conn: conn, from: bufio.NewReaderSize(conn, 64<<10)}
}

// Read fills p with what has come, and waits only where nothing has.
func (f *frames) Read(p []byte) (n int, err error) {
	for n < len(p) {
		switch {
		case len(f.head) > 0:
			k := copy(p[n:], f.head)
			f.head, n = f.head[k:], n+k
		case f.left > 0:
			if n > 0 && f.from.Buffered() == 0 {
				return n, nil
			}
			k, err := f.from.Read(p[n:min(len(p), n+f.left)])
			f.left, n = f.left-k, n+k
			if err != nil {
				return n, err
			}
		case f.big > 0:
			f.left = min(f.big, piece)
			f.big -= f.left
			f.head = binary.BigEndian.AppendUint32([]byte{copyData}, uint32(f.left+header-1))
		default:
			if n > 0 && f.from.Buffered() < header {
				return n, nil
			}
			h, err := f.from.Peek(header)
			if err != nil {
				return n, err
			}
			size := int(binary.BigEndian.Uint32(h[1:])) - (header - 1)
			if h[0] != copyData || size <= piece {
				f.left = header + size
				continue
			}
			if _, err := f.from.Discard(header); err != nil {
				return n, err
			}
			f.big = size
		}
	}
	return n, nil
}

// copyData is the type of the messages that carry rows.
const copyData = 'd'
