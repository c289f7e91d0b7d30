package rpc

import (
	"context"
	"errors"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"

	"connectrpc.com/connect/v2"
	"connectrpc.com/grpcreflect/v2"
)

// host returns what goes on the wire: the procedures of s.handlers behind the guard, health and reflection. It is a server of its own so
// that the caller's is not changed, and stays usable for other servers and in process.
func (s *Server) host() (*connect.Server, error) {
	hosted := connect.NewServer()
	for spec := range s.handlers.Specs() {
		admission := s.admission
		if service, _, _ := splitProcedure(spec.Procedure); neverShed(service) {
			admission = nil
		}
		hosted.Register(connect.Method{Spec: spec, Handler: s.guard(s.dispatch, admission)})
	}
	hosted.SetUnknownHandler(s.guard(s.dispatchUnknown, s.admission))
	present := serviceNames(s.handlers)
	if !slices.Contains(present, healthServiceName) {
		service, err := newHealthService(s.health)
		if err != nil {
			return nil, err
		}
		hosted.Register(service.methods()...)
	}
	if s.config.Reflection && !slices.Contains(present, grpcreflect.ReflectV1ServiceName) &&
		!slices.Contains(present, grpcreflect.ReflectV1AlphaServiceName) {
		// Its default resolver knows the standard files of health and reflection if the program has not linked them.
		grpcreflect.Register(hosted)
	}
	return hosted, nil
}

// dispatch serves a call by the caller's server, with its interceptors.
func (s *Server) dispatch(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
	info, _ := connect.CallInfoForServerContext(ctx)
	return s.handlers.Call(ctx, spec.Procedure, info, stream)
}

// dispatchUnknown gives an unknown method of a known service to the unknown handler of the caller's server. If there is none, the answer
// says which methods there are.
func (s *Server) dispatchUnknown(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
	err := s.dispatch(ctx, spec, stream)
	unhandled := connect.Errorf(connect.CodeUnimplemented, "procedure %q not registered", spec.Procedure)
	if rpcErr, ok := errors.AsType[*connect.Error](err); ok && rpcErr.Error() == unhandled.Error() {
		return s.unknownProcedure(spec.Procedure)
	}
	return err
}

// guard has next serve what admission lets in, all if it is nil, each call within its time, and turns a panic into an error.
func (s *Server) guard(next connect.ServerFunc, admission *admission) connect.ServerFunc {
	if admission != nil {
		next = admission.guard(next)
	}
	next = s.inTime(next)
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) (err error) {
		defer func() {
			if reason := recover(); reason != nil {
				if reason == http.ErrAbortHandler { //nolint:errorlint // A panic's value is compared as net/http does.
					panic(reason)
				}
				s.logger.ErrorContext(ctx, "rpc: a handler panicked", "procedure", spec.Procedure, "panic", reason, "stack", string(debug.Stack()))
				err = connect.NewError(connect.CodeInternal, "the handler panicked")
			}
		}()
		return next(ctx, spec, stream)
	}
}

// serviceNames returns the full names of the services that have procedures on server, in order of registration.
func serviceNames(server *connect.Server) []string {
	var names []string
	for spec := range server.Specs() {
		if name, _, ok := splitProcedure(spec.Procedure); ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// splitProcedure splits "/package.Service/Method".
func splitProcedure(procedure string) (service, method string, ok bool) {
	path, ok := strings.CutPrefix(procedure, "/")
	if !ok {
		return "", "", false
	}
	service, method, ok = strings.Cut(path, "/")
	return service, method, ok && service != "" && method != "" && !strings.Contains(method, "/")
}
