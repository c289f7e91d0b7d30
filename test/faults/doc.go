// Package faults has the rows of the fault matrix as tests, named by row: TestRow01IndexBackwards and so on.
//
//	row      test                                  file             what fails
//	1–3      TestRow01 to TestRow03                index_test       Consul's index
//	4–6      TestRow04 to TestRow06                outage_test      the agent
//	7–10, 12 TestRow07 to TestRow10, TestRow12     answers_test     what the agent answers
//	11       TestRow11Instances, …Weights          shapes_test      what is registered
//	13, 14   TestRow13, TestRow14                  membership_test  instances that come and go
//	15, 16   TestRow15, TestRow16                  unreachable_test the way to an instance
//	17, 18   TestRow17, TestRow18                  connections_test streams and connections, told from what is under way
//	19–21    TestRow19 to TestRow21                replay_test      the connection, with calls under way: what may be sent again
//	22, 23   TestRow22, TestRow23                  unreachable_test an instance that falls silent
//	24, 25   TestRow24, TestRow25                  connections_test streams and connections that are too few
//	26–30    TestRow26 to TestRow30                fallback_test    gRPC, which does not get through, or not whole
//	31, 32   TestRow31, TestRow32                  gateway_test     what might be taken for that, and is not
//	33       TestRow33Restored, …RegisteredAnew    return_test      nothing any more
//	34       TestRow34Pushback                     pushback_test    the service, which says when to come back
//	35       TestRow35Unavailable                  budget_test      the service, under load
//	36       TestRow36Cancel…                      cancel_test      the caller's patience
//	37       TestRow37Handler, …Interceptor, …     panic_test       the user's code
//	38       TestRow38Unreadable, …TooLarge        unreadable_test  the answer
//	39       TestRow39OneByteAtATime, …            slow_test        the speed
//	41       TestRow41Upload, …Gateway             upload_test      the order of request and answer
//	42       TestRow42RollingRestart               rolling_test     nothing: all instances are restarted
//
// They drive what a program drives, goplt.NewRegistry, goplt.NewTransport and goplt.NewFactory with their clients, against rpc.Server, through real
// sockets, by gRPC and by Connect/JSON where the row applies to both, and, where discovery is what fails, a real Consul agent. Package script stands
// in where a real agent cannot be made to misbehave, and the fault kit of package servicestest where a network, a gateway or net/http's server
// cannot.
//
// Besides what its row expects, each test checks that
//   - a call that is not idempotent was executed at most once, and exactly once if it succeeded, as counted by the servers;
//   - no call outlived its deadline by more than 50 ms;
//   - no goroutine that it started is left, and no file of the process after all tests.
//
// They need Linux and the build tag integration, and take some minutes under the race detector:
//
//	go test -race -tags=integration ./test/faults
//
// With -faults.long, outages and load are as long as the matrix has them instead of as long as it takes to see that they are survived.
package faults
