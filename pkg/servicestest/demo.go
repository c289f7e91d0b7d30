package servicestest

import (
	"context"
	"fmt"

	"github.com/0x1d/goplt/pkg/services"
)

// DemoPassword is the password of every user of [WithDemoData].
const DemoPassword = "correct horse battery staple"

// The IDs of users that are not random, since the log names them.
const (
	adaID   = "usr_ada"
	graceID = "usr_grace"
)

// addDemoData puts in what [WithDemoData] tells of.
func (p *Platform) addDemoData() {
	for role, permissions := range map[string][]string{
		"admin": {"*:*"}, "accountant": {"invoices:*", "customers:read"}, "auditor": {"*:read"},
	} {
		if err := p.DefineRole(role, permissions...); err != nil {
			panic(fmt.Sprintf("servicestest: define demo role %s: %v", role, err))
		}
	}
	now := p.now()
	for _, user := range []services.User{
		{ID: adaID, Email: ada, Name: "Ada Lovelace", Roles: []string{"admin"}, EmailVerified: true},
		{ID: graceID, Email: grace, Name: "Grace Hopper", Roles: []string{"accountant"}, EmailVerified: true},
		{ID: "usr_alan", Email: "alan@example.com", Name: "Alan Turing", Roles: []string{"auditor"}},
	} {
		user.CreatedAt, user.UpdatedAt = now, now
		p.addDemoUser(user)
	}
	for i, action := range []services.Action{
		{UserID: adaID, Action: "user.create", Resource: "user/usr_grace"},
		{UserID: adaID, Action: "user.create", Resource: "user/usr_alan"},
		{UserID: graceID, Action: "invoice.approve", Resource: "invoice/42", Metadata: map[string]string{"amount": "1200.00 EUR"}},
	} {
		action.ID = fmt.Sprintf("act_demo_%d", i+1)
		if err := p.Audit().Record(context.Background(), action); err != nil {
			panic(fmt.Sprintf("servicestest: record demo action %s: %v", action.ID, err))
		}
	}
}

func (p *Platform) addDemoUser(user services.User) {
	// Nothing can end a background context, and the addresses above differ: an error is a mistake in this file.
	hash, err := p.passwords.hash(context.Background(), DemoPassword)
	if err != nil {
		panic(fmt.Sprintf("servicestest: hash the demo password: %v", err))
	}
	_, message, err := p.add(&account{User: user, passwordHash: hash})
	if err != nil {
		panic(fmt.Sprintf("servicestest: add demo user %s: %v", user.ID, err))
	}
	if user.EmailVerified {
		p.dropOneTimeTokens(EmailVerification, user.ID)
		return
	}
	p.outbox.send(message)
}
