package services

import (
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// What may be sent twice is a promise to callers: machinery below the clients goes by it. A login, a rotation and a one-time token
// must never be.
func TestIdempotencyIsWhatTheContractsSay(t *testing.T) {
	const (
		once  = connect.IdempotencyUnknown
		again = connect.IdempotencyIdempotent
		reads = connect.IdempotencyNoSideEffects
	)
	want := map[string]connect.IdempotencyLevel{
		"/goplt.auth.v1.AuthService/Login":                        once,
		"/goplt.auth.v1.AuthService/RefreshToken":                 once,
		"/goplt.auth.v1.AuthService/ValidateToken":                reads,
		"/goplt.identity.v1.IdentityService/GetUser":              reads,
		"/goplt.identity.v1.IdentityService/GetUserByEmail":       reads,
		"/goplt.identity.v1.IdentityService/CreateUser":           once,
		"/goplt.identity.v1.IdentityService/UpdateUser":           again,
		"/goplt.identity.v1.IdentityService/DeleteUser":           once,
		"/goplt.identity.v1.IdentityService/VerifyEmail":          once,
		"/goplt.identity.v1.IdentityService/RequestPasswordReset": once,
		"/goplt.identity.v1.IdentityService/ResetPassword":        once,
		"/goplt.authz.v1.AuthzService/Authorize":                  reads,
		"/goplt.authz.v1.AuthzService/HasPermission":              reads,
		"/goplt.authz.v1.AuthzService/GetUserPermissions":         reads,
		"/goplt.audit.v1.AuditService/Record":                     again,
		"/goplt.audit.v1.AuditService/Query":                      reads,
	}
	got := map[string]connect.IdempotencyLevel{}
	for spec := range newServer(&stub{}, &journal{}).Specs() {
		got[spec.Procedure] = spec.IdempotencyLevel
		declared := spec.Schema.(protoreflect.MethodDescriptor).Options().(*descriptorpb.MethodOptions).GetIdempotencyLevel()
		if int32(declared) != int32(spec.IdempotencyLevel) {
			t.Errorf("%s: generated as %s, declared as %s: generate again", spec.Procedure, spec.IdempotencyLevel, declared)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("idempotency (-want +got):\n%s", diff)
	}
}

// Whoever prints a message, in a log or an error, prints no secret: that is what debug_redact is for.
func TestSecretsAreRedactedInEveryMessage(t *testing.T) {
	// Fields that are named like secrets and are none.
	harmless := []protoreflect.Name{"page_token", "next_page_token", "token_type", "token_id"}
	var secrets []string
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if strings.HasPrefix(string(file.Package()), "goplt.") {
			walkMessages(file.Messages(), func(message protoreflect.MessageDescriptor) {
				for i := range message.Fields().Len() {
					field := message.Fields().Get(i)
					name := string(field.Name())
					named := strings.Contains(name, "password") || strings.Contains(name, "token") || strings.Contains(name, "secret")
					secret := named && field.Message() == nil && !slices.Contains(harmless, field.Name())
					if redacted := field.Options().(*descriptorpb.FieldOptions).GetDebugRedact(); redacted != secret {
						t.Errorf("%s: debug_redact is %t, want %t", field.FullName(), redacted, secret)
					}
					if secret {
						secrets = append(secrets, string(field.FullName()))
					}
				}
			})
		}
		return true
	})
	slices.Sort(secrets)
	want := []string{
		"goplt.auth.v1.LoginRequest.password", "goplt.auth.v1.RefreshTokenRequest.refresh_token", "goplt.auth.v1.TokenPair.access_token",
		"goplt.auth.v1.TokenPair.refresh_token", "goplt.auth.v1.ValidateTokenRequest.token",
		"goplt.identity.v1.ResetPasswordRequest.new_password", "goplt.identity.v1.ResetPasswordRequest.token",
		"goplt.identity.v1.User.password", "goplt.identity.v1.VerifyEmailRequest.token",
	}
	if diff := cmp.Diff(want, secrets); diff != "" {
		t.Errorf("secret fields (-want +got):\n%s", diff)
	}
}

func walkMessages(messages protoreflect.MessageDescriptors, visit func(protoreflect.MessageDescriptor)) {
	for i := range messages.Len() {
		visit(messages.Get(i))
		walkMessages(messages.Get(i).Messages(), visit)
	}
}
