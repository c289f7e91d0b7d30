package client_test

import (
	"bufio"
	"net/http"
	"strings"
	"testing"

	"github.com/0x1d/goplt/internal/services/http/client"
)

func TestApology(t *testing.T) {
	const plain = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\n"
	for _, row := range []struct{ name, answer, want string }{
		{"Envoy's", plain + "Content-Length: 19\r\n\r\nno healthy upstream", "no healthy upstream"},
		{
			"Go's, of a server with TLS", "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
			"Client sent an HTTP request to an HTTPS server.",
		},
		{"the first of its lines", plain + "Content-Length: 10\r\n\r\n\n one\r\ntwo\n", "one"},
		{"nothing that a terminal would obey", "HTTP/1.0 502 B\r\n\r\na\x1b[31mb\xff\x00c", "a[31mbc"},
		{"a long one, cut within a character", "HTTP/1.0 502 B\r\n\r\n." + strings.Repeat("é", 300), "." + strings.Repeat("é", 99)},
		{"half of one", plain + "Content-Length: 100\r\n\r\nbad gate", "bad gate"},
		{"a page", "HTTP/1.1 502 B\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n<h1>", ""},
		{"a compressed one", plain + "Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", ""},
		{"in pieces", plain + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n1\r\ny\r\n0\r\n\r\n", "xy"},
		{"no error", "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n\r\nx", ""},
		{"none", plain + "Content-Length: 0\r\n\r\n", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			response, err := http.ReadResponse(bufio.NewReader(strings.NewReader(row.answer)), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			if got := client.Apology(response, response.Body); got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}
