package rpc

import (
	"io"
	"strings"
	"sync"
	"testing"
)

// TestSealedMessageIsNeverRead: a message that was found unread when its exchange was given up stays unread, however late net/http gets to
// it. Only so is "not sent" a proof.
func TestSealedMessageIsNeverRead(t *testing.T) {
	for range 2000 {
		body := &requestBody{ReadCloser: io.NopCloser(strings.NewReader("message"))}
		var read int
		var sealed bool
		var both sync.WaitGroup
		both.Go(func() { read, _ = body.Read(make([]byte, 8)) })
		both.Go(func() { sealed = body.seal() })
		both.Wait()
		if sealed == (read > 0) {
			t.Fatalf("sealed %t, %d bytes read", sealed, read)
		}
		if again := body.seal(); again != sealed {
			t.Fatalf("sealed %t, then %t", sealed, again)
		}
		if late, err := body.Read(make([]byte, 8)); sealed && (late > 0 || err == nil) {
			t.Fatalf("sealed, and then %d bytes were read, %v", late, err)
		}
	}
}
