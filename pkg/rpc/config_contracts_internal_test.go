package rpc

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
)

const shop = `
file {
  name: "shop.proto" package: "shop.v1" syntax: "proto3"
  message_type { name: "Message" field { name: "text" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING } }
  service {
    name: "Orders"
    method { name: "Get" input_type: ".shop.v1.Message" output_type: ".shop.v1.Message" options { idempotency_level: NO_SIDE_EFFECTS } }
    method { name: "Put" input_type: ".shop.v1.Message" output_type: ".shop.v1.Message" options { idempotency_level: IDEMPOTENT } }
    method { name: "Pay" input_type: ".shop.v1.Message" output_type: ".shop.v1.Message" options { deprecated: true } }
    method {
      name: "Watch" input_type: ".shop.v1.Message" output_type: ".shop.v1.Message" server_streaming: true
      options { idempotency_level: NO_SIDE_EFFECTS }
    }
  }
  service {
    name: "Payments"
    method { name: "Pay" input_type: ".shop.v1.Message" output_type: ".shop.v1.Message" }
    method {
      name: "Upload" input_type: ".shop.v1.Message" output_type: ".shop.v1.Message" client_streaming: true
      options { idempotency_level: IDEMPOTENT }
    }
  }
  service {
    name: "Events"
    method { name: "Watch" input_type: ".shop.v1.Message" output_type: ".shop.v1.Message" server_streaming: true }
  }
  service { name: "Planned" }
}`

// TestCheckMethods: what can have no effect by the contract is an error that says what would have one; what no contract knows passes.
func TestCheckMethods(t *testing.T) {
	t.Parallel()
	var set descriptorpb.FileDescriptorSet
	if err := prototext.Unmarshal([]byte(shop), &set); err != nil {
		t.Fatal(err)
	}
	contracts, err := protodesc.NewFiles(&set)
	if err != nil {
		t.Fatal(err)
	}
	delay, quantile := HedgeConfig{Delay: time.Second}, HedgeConfig{Quantile: 0.95}
	const declare = " (option idempotency_level); set idempotency: idempotent if it is"
	for _, row := range []struct {
		name   string
		config MethodConfig
		want   string // none if empty
	}{
		{"shop.v1.Orders.Get", MethodConfig{Timeout: 1}, ""},
		{"shop.v1.Orders.Get", MethodConfig{Hedge: delay}, ""},
		{"shop.v1.Orders.Put", MethodConfig{Hedge: quantile}, ""},
		{"shop.v1.Orders.Pay", MethodConfig{Timeout: 1, Hedge: HedgeConfig{MaxHedges: 2}}, ""}, // without a delay there is no hedge
		{"shop.v1.Orders.Pay", MethodConfig{Hedge: delay, Idempotency: IdempotencyIdempotent}, ""},
		{"shop.v1.Orders.Pay", MethodConfig{Hedge: delay}, "methods.shop.v1.Orders.Pay.hedge: Pay is not declared idempotent" + declare},
		{"shop.v1.Payments.Pay", MethodConfig{Hedge: quantile}, "methods.shop.v1.Payments.Pay.hedge: Pay is not declared idempotent" + declare},
		{"shop.v1.Orders.Get", MethodConfig{Hedge: delay, Idempotency: IdempotencyNotIdempotent}, ""}, // Validate has that
		{
			"shop.v1.Orders.Watch",
			MethodConfig{Hedge: delay},
			"methods.shop.v1.Orders.Watch.hedge: Watch is a stream, and only unary calls are hedged; remove the hedge",
		},
		{
			"shop.v1.Payments.Upload",
			MethodConfig{Hedge: delay, Idempotency: IdempotencyIdempotent},
			"methods.shop.v1.Payments.Upload.hedge: Upload is a stream, and only unary calls are hedged; remove the hedge",
		},

		{"shop.v1.Orders", MethodConfig{Hedge: delay}, ""}, // two methods are hedged, the others are not
		{"shop.v1.Payments", MethodConfig{Timeout: 1}, ""},
		{"shop.v1.Payments", MethodConfig{Hedge: delay, Idempotency: IdempotencyIdempotent}, ""},
		{
			"shop.v1.Payments",
			MethodConfig{Hedge: delay},
			"methods.shop.v1.Payments.hedge: Payments has no unary method that is declared idempotent (option idempotency_level); " +
				"give each that is an entry of its own, with idempotency: idempotent and the hedge",
		},
		{
			"shop.v1.Events",
			MethodConfig{Hedge: delay, Idempotency: IdempotencyIdempotent},
			"methods.shop.v1.Events.hedge: Events has no unary method, and only unary calls are hedged; remove the hedge",
		},

		{"shop.v1.Orders.Gett", MethodConfig{}, "methods.shop.v1.Orders.Gett: Orders has no method Gett; its methods are Get, Put, Pay, Watch"},
		{"shop.v1.Orders.Get.Now", MethodConfig{}, "methods.shop.v1.Orders.Get.Now: Orders has no method Get.Now; its methods are Get, Put, Pay, Watch"},
		{"shop.v1.Planned.Get", MethodConfig{}, "methods.shop.v1.Planned.Get: Planned has no method Get, nor any other"},
		{"shop.v1.Message", MethodConfig{}, "methods.shop.v1.Message: this is neither a method nor a service"},
		{"shop.v1.Message.text", MethodConfig{}, "methods.shop.v1.Message.text: this is neither a method nor a service"},
		{"shop.v1", MethodConfig{}, "methods.shop.v1: this is a package; want the name of a service in it, or of a method"},

		{"shop.v1.Refunds.Pay", MethodConfig{Hedge: delay}, ""},
		{"shop.v2.Orders.Get", MethodConfig{Hedge: delay}, ""},
		{"shop.v1.Ordres.Get", MethodConfig{}, ""}, // may be a contract that is not linked
		{"shop.Orders.Get", MethodConfig{}, ""},
		{"Orders", MethodConfig{}, "methods.Orders: there is no such method or service; did you mean shop.v1.Orders?"},
		{"shop.Get", MethodConfig{}, "methods.shop.Get: there is no such method or service; did you mean shop.v1.Orders.Get?"},
		{"orders.pay", MethodConfig{}, "methods.orders.pay: there is no such method or service; did you mean shop.v1.Orders.Pay?"},
		{"Upload", MethodConfig{}, "methods.Upload: there is no such method or service; did you mean shop.v1.Payments.Upload?"},
		{"v1.Orders.Pay", MethodConfig{}, "methods.v1.Orders.Pay: there is no such method or service; did you mean shop.v1.Orders.Pay?"},
		{"billing.Get", MethodConfig{}, ""},
		{"no name", MethodConfig{Hedge: delay}, ""}, // Validate has that
		{"", MethodConfig{Hedge: delay}, ""},
	} {
		err := checkMethods(map[string]MethodConfig{row.name: row.config}, contracts)
		if got := fmt.Sprint(err); got != row.want && (err != nil || row.want != "") {
			t.Errorf("%s %+v:\ngot  %s\nwant %s", row.name, row.config, got, row.want)
		}
	}
}
