package client_test

import (
	"net/http"
	"testing"

	"go.uber.org/goleak"

	"github.com/0x1d/goplt/internal/services/http/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAnswered(t *testing.T) {
	for _, row := range []struct {
		code        int
		contentType string
		want        bool
	}{
		{200, "application/json", true},
		{200, "application/json; charset=utf-8", true},
		{200, "application/connect+json", true},
		{401, "application/json", true},
		{404, "application/json", true},
		{503, "application/json", true},
		{200, "text/html", false},
		{200, "", false},
		{200, "application/grpc", false},
		{200, "application/jsonp", false},
		{404, "text/plain", false},
		{502, "text/html", false},
		{415, "application/connect+json", false},
	} {
		response := &http.Response{StatusCode: row.code, Header: http.Header{"Content-Type": {row.contentType}}}
		if got := client.Answered(response); got != row.want {
			t.Errorf("%d %q: got %t, want %t", row.code, row.contentType, got, row.want)
		}
	}
}
