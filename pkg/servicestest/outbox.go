package servicestest

import (
	"slices"
	"sync"
	"time"
)

// outboxSize is how many messages are kept, the latest.
const outboxSize = 1000

// Message is a mail that a platform would have sent. Its token is a secret that this package exists to show.
type Message struct {
	// To is the address, normalised.
	To string
	// Kind is what the token is good for.
	Kind TokenKind
	// Token is what the mail would have carried.
	Token string
	// SentAt is when it was sent, by the platform's clock.
	SentAt time.Time
}

// outbox keeps the messages in place of a mail server.
type outbox struct {
	deliver  func(Message)
	mu       sync.Mutex
	messages []Message
}

// send takes a message. It calls out, so the caller must hold no lock.
func (o *outbox) send(message Message) {
	o.mu.Lock()
	if len(o.messages) == outboxSize {
		o.messages = slices.Delete(o.messages, 0, 1)
	}
	o.messages = append(o.messages, message)
	o.mu.Unlock()
	o.deliver(message)
}

// Outbox returns the messages that the platform sent, oldest first; the last thousand of them are kept.
func (p *Platform) Outbox() []Message {
	p.outbox.mu.Lock()
	defer p.outbox.mu.Unlock()
	return slices.Clone(p.outbox.messages)
}

// LastToken returns the token of a kind that was last sent to an address, and whether one was.
func (p *Platform) LastToken(email string, kind TokenKind) (string, bool) {
	address := normaliseEmail(email)
	for _, message := range slices.Backward(p.Outbox()) {
		if message.To == address && message.Kind == kind {
			return message.Token, true
		}
	}
	return "", false
}
