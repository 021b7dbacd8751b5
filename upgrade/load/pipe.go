package load

import (
	"bufio"
	"context"
	"errors"
	"io"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
)

// piece is how much is handed on at once: what pgconn puts into one CopyData
// message. PostgreSQL sends one message a row, and a system call and a switch
// between goroutines for each row costs more than the row.
const piece = 65536 - 5

// errOther is the pipe's own word for "the other end failed".
var errOther = errors.New("the other end of the pipe failed")

// pipe streams out, a COPY … TO STDOUT on from, into in, a COPY … FROM STDIN
// on to, and returns the rows that PostgreSQL counted there. seen is given the
// bytes of each piece and may hold the pipe up; an error of it ends the pipe.
// The error is that of the end which failed first. An end
// that only suffered may be closed, or fit for use again (IsClosed).
func pipe(ctx context.Context, from, to *pgconn.PgConn, out, in string, seen func(int64) error) (rows int64, err error) {
	r, w := io.Pipe()
	var fromErr, toErr error
	var wg sync.WaitGroup
	wg.Go(func() {
		b := bufio.NewWriterSize(&counter{w, seen}, piece)
		if _, fromErr = from.CopyTo(ctx, b, out); fromErr == nil {
			fromErr = b.Flush()
		}
		_ = w.CloseWithError(fromErr) // never fails
	})
	wg.Go(func() {
		var tag pgconn.CommandTag
		tag, toErr = to.CopyFrom(ctx, r, in)
		rows = tag.RowsAffected()
		_ = r.CloseWithError(errOther) // never fails
	})
	wg.Wait()
	if fromErr != nil && !errors.Is(fromErr, errOther) {
		return rows, &endError{end: from, err: fromErr}
	}
	if toErr != nil {
		return rows, &endError{end: to, err: toErr}
	}
	return rows, nil
}

// endError is an error of one end of a pipe.
type endError struct {
	end *pgconn.PgConn
	err error
}

func (e *endError) Error() string { return e.err.Error() }
func (e *endError) Unwrap() error { return e.err }

type counter struct {
	w    io.Writer
	seen func(int64) error
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	if err == nil {
		err = c.seen(int64(n))
	}
	return n, err
}
