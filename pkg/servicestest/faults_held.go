package servicestest

import (
	"context"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
)

// heldStream keeps what a handler sends until it is released. The handler notices no more than that nothing blocks.
type heldStream struct {
	connect.ServerStream

	ctx      context.Context //nolint:containedctx // of the call, whose end sending has to tell
	opened   bool            // whether the headers were sent before a message
	messages []any
}

// SendHeaders implements [connect.ServerStream].
func (s *heldStream) SendHeaders() error {
	s.opened = true
	return s.ctx.Err()
}

// Send implements [connect.ServerStream]. It fails when the client has gone, which is what ends some handlers.
func (s *heldStream) Send(message any) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if sent, ok := message.(proto.Message); ok {
		message = proto.Clone(sent) // The handler may change its own for the next one. Messages of other kinds cannot be copied.
	}
	s.messages = append(s.messages, message)
	return nil
}

// release sends it all.
func (s *heldStream) release() error {
	if s.opened {
		if err := s.ServerStream.SendHeaders(); err != nil {
			return err
		}
	}
	for _, message := range s.messages {
		if err := s.ServerStream.Send(message); err != nil {
			return err
		}
	}
	return nil
}
