// Package outlier finds the instances of a service that fail where their peers do not, and says when each may serve again.
//
// A [Detector] judges the hosts of one service by the results of the calls they were given (gRFC A50,
// https://github.com/grpc/proposal/blob/master/A50-xds-outlier-detection.md): at the end of each interval by their success rates, compared with
// each other, and by their failure percentages; and at once by failures in a row, as Envoy does. A host goes round:
//
//	          failures in a row, rates at the end of an interval
//	Serving ──────────────────────────────────────────────────────▶ Ejected
//	   ▲                                                               │ base ejection × multiplier has passed
//	   └──────────────── a probe succeeds ──── AwaitingProbe ◀─────────┘
//	                                           │           ▲
//	                                           └─ a probe fails: again later
//
// What it promises: no more hosts are ejected than the maximum share, but one may always be; the last host that serves never is; what is
// recorded is counted exactly, whatever else happens at the time; a host is ejected once, however many failures come at a time.
//
// Where A50 speaks, its rules hold, with these differences:
//   - The maximum share bounds what an ejection leads to, as in Envoy, and not only what was before it: 10 % of 10 is 1 and not 2.
//   - Of several outliers the worst goes first; A50 leaves the order open.
//   - Hosts that are out are in no mean and are not ejected again, as in Envoy: in a panic they are given calls, which A50 does not know.
//   - An ejection ends when its time has passed, not with the interval after that; and then a probe has to succeed.
//   - Without calls no interval runs, so that an idle service wakes nobody. Multipliers still step back.
//
// The package does no I/O, starts no goroutine and reads no clock: its owner calls [Detector.Sweep] when it is time, and probes the hosts for
// which [Host.BeginProbe] says so. Recording a result, and asking whether a host is ejected, take a few atomic operations and no lock.
package outlier
