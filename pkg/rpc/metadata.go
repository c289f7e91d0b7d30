package rpc

import (
	"context"
	"strconv"

	"connectrpc.com/connect/v2"
)

// previousAttemptsHeader tells the service how many attempts before this one it may have seen (gRFC A6).
const previousAttemptsHeader = "Grpc-Previous-Rpc-Attempts"

// freshInfo gives a later attempt response metadata of its own, with the caller's request metadata. The first attempt uses the caller's:
// most calls have no other.
func (c *call) freshInfo(ctx context.Context) context.Context {
	callers, _ := connect.CallInfoForClientContext(c.ctx)
	ctx, own := connect.NewClientContext(ctx)
	if callers != nil {
		for name, values := range callers.RequestHeader().All() {
			own.RequestHeader().SetValues(name, values)
		}
	}
	if c.executed > 0 {
		own.RequestHeader().Set(previousAttemptsHeader, strconv.Itoa(c.executed))
	}
	return ctx
}

// adoptInfo shows the caller what the latest attempt brought, in place of what earlier ones did: metadata and error are of the same
// attempt.
func (c *call) adoptInfo(ctx context.Context) {
	callers, ok := connect.CallInfoForClientContext(c.ctx)
	own, _ := connect.CallInfoForClientContext(ctx)
	if !ok || own == nil || own == callers {
		return
	}
	replace(callers.ResponseHeader(), own.ResponseHeader())
	replace(callers.ResponseTrailer(), own.ResponseTrailer())
	callers.Spec, callers.PeerAddr, callers.Protocol, callers.Codec = own.Spec, own.PeerAddr, own.Protocol, own.Codec
	callers.RequestEncoding, callers.ResponseEncoding = own.RequestEncoding, own.ResponseEncoding
	callers.SendStats, callers.ReceiveStats, callers.TransportInfo = own.SendStats, own.ReceiveStats, own.TransportInfo
}

func replace(to, from *connect.Header) {
	var stale []string
	for name := range to.All() {
		stale = append(stale, name)
	}
	for _, name := range stale {
		to.Delete(name)
	}
	for name, values := range from.All() {
		to.SetValues(name, values)
	}
}
