package servicestest

import (
	"context"
	"fmt"

	"github.com/0x1d/goplt/pkg/services"
)

// DemoPassword is the password of every user of [WithDemoData].
const DemoPassword = "correct horse battery staple"

// addDemoData puts in what [WithDemoData] tells of.
func (p *Platform) addDemoData() {
	p.roles["admin"] = []services.Permission{{Resource: wildcard, Action: wildcard}}
	p.roles["accountant"] = []services.Permission{{Resource: "invoices", Action: wildcard}, {Resource: "customers", Action: "read"}}
	p.roles["auditor"] = []services.Permission{{Resource: wildcard, Action: "read"}}
	now := p.now()
	for _, user := range []services.User{
		{ID: "usr_ada", Email: "ada@example.com", Name: "Ada Lovelace", Roles: []string{"admin"}, EmailVerified: true},
		{ID: "usr_grace", Email: "grace@example.com", Name: "Grace Hopper", Roles: []string{"accountant"}, EmailVerified: true},
		{ID: "usr_alan", Email: "alan@example.com", Name: "Alan Turing", Roles: []string{"auditor"}},
	} {
		user.CreatedAt, user.UpdatedAt = now, now
		p.addDemoUser(user)
	}
	for i, action := range []services.Action{
		{UserID: "usr_ada", Action: "user.create", Resource: "user/usr_grace"},
		{UserID: "usr_ada", Action: "user.create", Resource: "user/usr_alan"},
		{UserID: "usr_grace", Action: "invoice.approve", Resource: "invoice/42", Metadata: map[string]string{"amount": "1200.00 EUR"}},
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
