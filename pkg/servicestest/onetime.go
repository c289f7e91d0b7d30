package servicestest

import "fmt"

// TokenKind says what a single-use token is good for.
type TokenKind int

const (
	// EmailVerification tokens prove that their holder reads mail at an address; VerifyEmail takes them.
	EmailVerification TokenKind = iota + 1
	// PasswordReset tokens let their holder set a new password; ResetPassword takes them.
	PasswordReset
)

// String names the kind.
func (k TokenKind) String() string {
	switch k {
	case EmailVerification:
		return "email verification"
	case PasswordReset:
		return "password reset"
	default:
		return fmt.Sprintf("TokenKind(%d)", int(k))
	}
}

// oneTimeToken is what a single-use token stands for.
type oneTimeToken struct {
	kind   TokenKind
	userID string
}

// newOneTimeToken makes a token of a kind for a user and returns the message to send once the lock, which the caller holds, is free.
func (p *Platform) newOneTimeToken(kind TokenKind, user *account) Message {
	now := p.now()
	token := p.oneTime.add(oneTimeToken{kind: kind, userID: user.ID}, now, p.settings.oneTimeTTL[kind])
	return Message{To: user.Email, Kind: kind, Token: token, SentAt: now}
}

// oneTimeUser returns whose token of a kind it is, or nil if it cannot be used. The caller holds the lock.
func (p *Platform) oneTimeUser(kind TokenKind, token string) *account {
	found, ok := p.oneTime.find(token, p.now())
	if !ok || found.kind != kind {
		return nil
	}
	return p.users[found.userID]
}

// dropOneTimeTokens makes a user's tokens of a kind useless. The caller holds the lock.
func (p *Platform) dropOneTimeTokens(kind TokenKind, userID string) {
	p.oneTime.forget(func(token oneTimeToken) bool { return token == oneTimeToken{kind: kind, userID: userID} })
}
