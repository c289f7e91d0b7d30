package servicestest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/0x1d/goplt/pkg/servicestest"
)

// Use the services in one process, without a network.
func ExampleNewPlatform() {
	ctx := context.Background()
	platform := servicestest.NewPlatform(servicestest.WithDemoData(), servicestest.WithPasswordCost(servicestest.TestPasswordCost()))

	tokens, err := platform.Auth().Login(ctx, "grace@example.com", servicestest.DemoPassword)
	if err != nil {
		fmt.Println(err)
		return
	}
	claims, err := platform.Auth().ValidateToken(ctx, tokens.AccessToken)
	fmt.Println(claims.UserID, claims.Roles, err)
	// Output: usr_grace [accountant] <nil>
}

// Put a gateway that loses its server now and then in front of any HTTP service.
func ExampleHTTPProxy() {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "fresh bread") }))
	defer service.Close()
	gateway, err := servicestest.NewHTTPProxy(service.URL) // In a test: servicestest.StartHTTPProxy(t, service.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer gateway.Close()

	fault := gateway.InjectStatus("shop.Buy", http.StatusBadGateway, servicestest.Times(1))
	for range 2 {
		response, err := service.Client().Post(gateway.URL+"/bakery.v1.ShopService/Buy", "application/json", strings.NewReader(`{}`))
		if err != nil {
			fmt.Println(err)
			return
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		fmt.Println(response.StatusCode, strings.TrimSpace(string(body)))
	}
	fmt.Println(fault.Hits(), "hit of", gateway.Requests("shop"), "requests")
	// Output:
	// 502 injected fault
	// 200 fresh bread
	// 1 hit of 2 requests
}

// Prove that a call that is repeated was executed once, in a service of whatever kind.
func ExampleExecutions() {
	executions := servicestest.NewExecutions()
	seen := make(map[string]bool)
	// A handler that knows an order by its ID, however often it comes.
	place := func(callID string) {
		if !seen[callID] {
			seen[callID] = true
			executions.Count(callID)
		}
	}

	id := servicestest.NewCallID() // Sent along in servicestest.CallIDHeader.
	place(id)
	place(id)
	fmt.Println("executed", executions.Of(id), "time") // In a test: executions.ExpectAtMostOnce(t)
	// Output: executed 1 time
}
