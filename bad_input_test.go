package goplt_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/0x1d/goplt/pkg/servicestest"
)

// TestBadInputOverHTTP pins what a client that speaks plain JSON is told when it is mistaken: the HTTP status, and the text.
func TestBadInputOverHTTP(t *testing.T) {
	platform := servicestest.Start(t, servicestest.WithDemoData())
	tokens, err := platform.Auth.Login(t.Context(), "ada@example.com", servicestest.DemoPassword)
	if err != nil {
		t.Fatal(err)
	}
	platform.Platform.Advance(365 * 24 * time.Hour)
	current, err := platform.Auth.Login(t.Context(), "ada@example.com", servicestest.DemoPassword)
	if err != nil {
		t.Fatal(err)
	}
	signed, signature := current.AccessToken[:strings.LastIndex(current.AccessToken, ".")+1], tokens.AccessToken[strings.LastIndex(tokens.AccessToken, ".")+1:]
	forged := signed + signature // well-formed, and not what was signed
	const auth, identity = "/goplt.auth.v1.AuthService/", "/goplt.identity.v1.IdentityService/"
	const asJSON = "application/json"
	for _, test := range []struct {
		name, path, contentType, body string
		status                        int
		code, message                 string // of the JSON answer
	}{
		{"forged token", auth + "ValidateToken", asJSON, `{"token":"` + forged + `"}`, 401, "unauthenticated", "access token is forged: its signature"},
		{"token without a method", auth + "ValidateToken", asJSON, `{"token":"e30.e30.e30"}`, 401, "unauthenticated", "access token is forged: its signature"},
		{"malformed token", auth + "ValidateToken", asJSON, `{"token":"x"}`, 401, "unauthenticated", "access token is malformed"},
		{"expired token", auth + "ValidateToken", asJSON, `{"token":"` + tokens.AccessToken + `"}`, 401, "unauthenticated", "access token is expired"},
		{"expired refresh token", auth + "RefreshToken", asJSON, `{"refreshToken":"` + tokens.RefreshToken + `"}`, 401, "unauthenticated", "refresh token"},
		{"empty email", auth + "Login", asJSON, `{"password":"x"}`, 400, "invalid_argument", "email"},
		{"empty email of a user", identity + "CreateUser", asJSON, `{"user":{"name":"x","password":"long enough"}}`, 400, "invalid_argument", "email"},
		{"wrong password", auth + "Login", asJSON, `{"email":"ada@example.com","password":"x"}`, 401, "unauthenticated", "email or password is wrong"},
		{"unknown user", identity + "GetUser", asJSON, `{"id":"nobody"}`, 404, "not_found", `no user has the ID "nobody"`},
		{"unknown method", auth + "Logn", asJSON, `{}`, 404, "unimplemented", "Logn"},
		{"unknown service", "/goplt.mail.v1.MailService/Send", asJSON, `{}`, 404, "unimplemented", "goplt.mail.v1.MailService"},
		{"broken JSON", auth + "Login", asJSON, `{"email":`, 400, "invalid_argument", "(line 1:10): field email: want a string"},
		{"wrong type", auth + "Login", asJSON, `{"email":1}`, 400, "invalid_argument", "(line 1:10): field email: want a string"},
		{"wrong content type", auth + "Login", "text/plain", `x`, 415, "unknown", `"text/plain" is not one that it takes; want application/json`},
		{"no content type", auth + "Login", "", `{}`, 415, "unknown", "no content type; want application/json"},
		{"oversize", auth + "Login", asJSON, `{"email":"` + strings.Repeat("x", 5<<20) + `"}`, 429, "resource_exhausted", "configured max 4194304"},
	} {
		t.Run(test.name, func(t *testing.T) {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, platform.URL+test.path, strings.NewReader(test.body))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Content-Type", test.contentType)
			transport := &http.Transport{DisableKeepAlives: true}
			response, err := transport.RoundTrip(request)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			body, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			var answer struct{ Code, Message string }
			if err := json.Unmarshal(body, &answer); err != nil {
				t.Fatalf("%v in %q", err, body)
			}
			if accepted := response.Header.Get("Accept-Post"); (test.status == http.StatusUnsupportedMediaType) != strings.Contains(accepted, asJSON) {
				t.Errorf("status %d says that it accepts %q", response.StatusCode, accepted)
			}
			if response.StatusCode != test.status || answer.Code != test.code || !strings.Contains(answer.Message, test.message) {
				t.Errorf("status %d, %s; want status %d, %s, %q", response.StatusCode, body, test.status, test.code, test.message)
			}
		})
	}
}
