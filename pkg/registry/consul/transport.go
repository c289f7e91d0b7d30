package consul

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
)

const (
	// maxAnswerBytes bounds an answer, decompressed: some twenty thousand instances.
	maxAnswerBytes = 32 << 20
	// maxErrorBytes bounds the text of an error that the agent answers.
	maxErrorBytes = 1 << 10
)

var errAnswerTooLarge = fmt.Errorf("the answer is larger than %d MiB", maxAnswerBytes>>20)

// boundedTransport adds the token of the moment to each request, and bounds what an answer may take. It notes what the API package does not
// pass on in the exchange of the request's context.
type boundedTransport struct {
	next   http.RoundTripper
	tokens *tokens
}

// exchange is what was sent and received in one request.
type exchange struct {
	token  string
	header http.Header
}

type exchangeKey struct{}

func withExchange(ctx context.Context) (context.Context, *exchange) {
	noted := new(exchange)
	return context.WithValue(ctx, exchangeKey{}, noted), noted
}

// RoundTrip implements [http.RoundTripper].
func (t *boundedTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	token, err := t.tokens.current()
	if err != nil {
		if request.Body != nil {
			err = errors.Join(err, request.Body.Close())
		}
		return nil, fmt.Errorf("%w: %w", ErrForbidden, err)
	}
	request = request.Clone(request.Context())
	request.Header.Del("X-Consul-Token")
	if token != "" {
		request.Header.Set("X-Consul-Token", token)
	}
	response, err := t.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if noted, ok := request.Context().Value(exchangeKey{}).(*exchange); ok {
		noted.token, noted.header = token, response.Header
	}
	if response.StatusCode != http.StatusOK {
		response.Body = &boundedBody{ReadCloser: response.Body, left: maxErrorBytes, end: io.EOF}
		return response, nil
	}
	if response.ContentLength > maxAnswerBytes {
		return nil, errors.Join(errAnswerTooLarge, response.Body.Close())
	}
	response.Body = &boundedBody{ReadCloser: response.Body, left: maxAnswerBytes, end: errAnswerTooLarge}
	return response, nil
}

// boundedBody ends with an error where more than left bytes follow.
type boundedBody struct {
	io.ReadCloser

	left int64
	end  error
}

func (b *boundedBody) Read(into []byte) (int, error) {
	if len(into) == 0 {
		return 0, nil
	}
	if b.left < 0 {
		return 0, b.end
	}
	if int64(len(into)) > b.left+1 {
		into = into[:b.left+1] // one more than allowed tells whether there is more
	}
	read, err := b.ReadCloser.Read(into)
	if b.left -= int64(read); b.left < 0 {
		return read - 1, b.end
	}
	return read, err
}
