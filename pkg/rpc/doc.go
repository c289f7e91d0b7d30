// Package rpc calls and hosts Connect services.
//
// [Transport] is a [connect.Transport] for any generated Connect v2 client: it finds the service's instances, picks one, speaks gRPC to it or
// Connect with JSON for as long as gRPC does not get through, and repeats what is safe to repeat.
//
//	transport, err := rpc.NewTransport("consul:///orders", registry)
//	defer transport.Close()
//	orders := ordersv1connect.NewOrdersServiceClient(connect.NewClient(transport))
//
// The path of a unary call:
//
//	Transport.NewClientStream
//	  deadline, then for each attempt
//	    pick an instance        over an immutable snapshot, by [BalancerConfig]: policy, weight, zone, subset, slow start; but not one
//	                            whose circuit breaker is open ([BreakerConfig]) or that is ejected ([OutlierConfig]) while others are left
//	    acquire a connection    the instance's pool; whatever fails here was not sent
//	    wire                    connecthttp with gRPC, or Connect/JSON
//	    verdict                 what may follow a failure: another attempt, another protocol, nothing
//
// In the background, one watch follows the target and replaces the snapshot. [Transport.Status] tells what is known of each instance, and what
// changed last. Calls that are to meet the same instance carry a key: [WithHashKey].
//
// [Server] hosts any [connect.Server] on one port for gRPC, gRPC-Web and Connect, with health, reflection, registration and a graceful
// stop.
package rpc
