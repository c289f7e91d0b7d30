package services

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	auditv1 "github.com/0x1d/goplt/gen/goplt/audit/v1"
	authzv1 "github.com/0x1d/goplt/gen/goplt/authz/v1"
	"github.com/0x1d/goplt/pkg/services"
)

const rounds = 500

// codecs are the two encodings that calls use.
func codecs() map[string]func(from, to proto.Message) error {
	return map[string]func(from, to proto.Message) error{
		"proto": func(from, to proto.Message) error {
			encoded, err := proto.Marshal(from)
			if err != nil {
				return err
			}
			return proto.Unmarshal(encoded, to)
		},
		"json": func(from, to proto.Message) error {
			encoded, err := protojson.Marshal(from)
			if err != nil {
				return err
			}
			return protojson.Unmarshal(encoded, to)
		},
	}
}

// testMapping checks that a pair of functions loses nothing, whichever side one begins on and whichever encoding lies between. The adjust
// functions, which may be nil, remove from a random value what has no place on the other side.
func testMapping[D any, P proto.Message](
	t *testing.T, toProto func(D) P, fromProto func(P) D, adjustDomain func(*D), adjustMessage func(P),
) {
	t.Helper()
	for encoding, carry := range codecs() {
		random := newRandom(1)
		for range rounds {
			domain := randomOf[D](random)
			if adjustDomain != nil {
				adjustDomain(&domain)
			}
			sent := toProto(domain)
			received := sent.ProtoReflect().New().Interface().(P)
			if err := carry(sent, received); err != nil {
				t.Fatalf("%s: %v\n%v", encoding, err, sent)
			}
			if diff := cmp.Diff(domain, fromProto(received)); diff != "" {
				t.Fatalf("domain → %s → domain (-sent +received):\n%s", encoding, diff)
			}
		}
		for range rounds {
			message := toProto(*new(D)).ProtoReflect().Type().New().Interface().(P)
			fillMessage(random, message.ProtoReflect())
			if adjustMessage != nil {
				adjustMessage(message)
			}
			back := message.ProtoReflect().New().Interface().(P)
			if err := carry(toProto(fromProto(message)), back); err != nil {
				t.Fatalf("%s: %v\n%v", encoding, err, message)
			}
			if diff := cmp.Diff(message, back, protocmp.Transform()); diff != "" {
				t.Fatalf("message → domain → %s → message (-first +last):\n%s", encoding, diff)
			}
		}
	}
}

// byPointer adapts a mapping that takes a pointer, because nil means that there is nothing.
func byPointer[D any, P proto.Message](toProto func(*D) P, fromProto func(P) *D) (to func(D) P, from func(P) D) {
	return func(domain D) P { return toProto(&domain) }, func(message P) D { return *fromProto(message) }
}

func TestMappingsLoseNothing(t *testing.T) {
	t.Run("TokenResponse", func(t *testing.T) {
		to, from := byPointer(tokensToProto, tokensFromProto)
		testMapping(t, to, from, nil, nil)
	})
	t.Run("TokenClaims", func(t *testing.T) {
		to, from := byPointer(claimsToProto, claimsFromProto)
		testMapping(t, to, from, nil, nil)
	})
	t.Run("User", func(t *testing.T) {
		to, from := byPointer(userToProto, userFromProto)
		testMapping(t, to, from, nil, nil)
	})
	t.Run("Permissions", func(t *testing.T) {
		testMapping(t,
			func(permissions []services.Permission) *authzv1.GetUserPermissionsResponse {
				return &authzv1.GetUserPermissionsResponse{Permissions: permissionsToProto(permissions)}
			},
			func(res *authzv1.GetUserPermissionsResponse) []services.Permission {
				return permissionsFromProto(res.GetPermissions())
			}, nil, nil)
	})
	t.Run("Action", func(t *testing.T) {
		testMapping(t, func(action services.Action) *auditv1.Action { return actionToProto(&action) }, actionFromProto, nil, nil)
	})
	t.Run("AuditFilters", func(t *testing.T) { testMapping(t, filtersToProto, filtersFromProto, nil, nil) })
	t.Run("page of AuditLogs", func(t *testing.T) {
		testMapping(t, pageToProto, pageFromProto,
			func(page *[]services.AuditLog) { *page = onlyLastToken(*page) },
			func(res *auditv1.QueryResponse) {
				if len(res.GetLogs()) == 0 {
					res.NextPageToken = "" // Query passes over such pages
				}
			})
	})
}

// onlyLastToken keeps what a page may hold: a token in its last entry.
func onlyLastToken(page []services.AuditLog) []services.AuditLog {
	for i := range len(page) - 1 {
		page[i].PageToken = ""
	}
	return page
}

// What a process's own clock and time zone add to a time does not travel.
func TestTimesArriveInUTC(t *testing.T) {
	local := time.Now().In(time.FixedZone("elsewhere", 5*3600))
	got := timeFromProto(timeToProto(local))
	if !got.Equal(local) || got.Location() != time.UTC {
		t.Errorf("got %v, want %v in UTC", got, local)
	}
}

// A message that holds a slice or a map of the caller's would be read while the caller, whose call was cancelled, already writes it.
func TestRequestsHoldNothingOfTheCallers(t *testing.T) {
	user := services.User{Roles: []string{"reader"}}
	action := services.Action{Metadata: map[string]string{"ip": "::1"}}
	userMessage, actionMessage := userToProto(&user), actionToProto(&action)
	user.Roles[0], action.Metadata["ip"] = "changed", "changed"
	if got := userMessage.GetRoles()[0]; got != "reader" {
		t.Errorf("the roles in the message are the caller's: %q", got)
	}
	if got := actionMessage.GetMetadata()["ip"]; got != "::1" {
		t.Errorf("the metadata in the message is the caller's: %q", got)
	}
}

func TestNilStaysNil(t *testing.T) {
	if tokensToProto(nil) != nil || tokensFromProto(nil) != nil || claimsToProto(nil) != nil || claimsFromProto(nil) != nil ||
		userToProto(nil) != nil || userFromProto(nil) != nil {
		t.Error("nil became a value")
	}
	if permissionsFromProto(nil) != nil || pageFromProto(nil) != nil || actionFromProto(nil).Metadata != nil {
		t.Error("nil became an empty list or map")
	}
}
