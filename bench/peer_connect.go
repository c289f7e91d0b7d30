package main

import (
	"context"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	authv1 "github.com/0x1d/goplt/gen/goplt/auth/v1"
	"github.com/0x1d/goplt/gen/goplt/auth/v1/authv1connect"
)

// compressMinBytes is goplt's default, so that the peers differ in their machinery and not in whether they run gzip.
const compressMinBytes = 1 << 10

type connectHandler struct {
	authv1connect.UnimplementedAuthServiceHandler
}

func (connectHandler) ValidateToken(_ context.Context, request *authv1.ValidateTokenRequest) (*authv1.ValidateTokenResponse, error) {
	if request.GetToken() != token {
		return nil, connect.NewError(connect.CodeUnauthenticated, "wrong token")
	}
	return answer(), nil
}

func serveConnect() (*server, error) {
	service := connect.NewServer()
	authv1connect.RegisterAuthServiceHandler(service, connectHandler{})
	mux := http.NewServeMux()
	connecthttp.Mount(mux, service, connecthttp.WithCompressMinBytes(compressMinBytes))
	return serveHTTP(mux)
}

// serveHTTP serves HTTP/1.1 and HTTP/2, in cleartext.
func serveHTTP(handler http.Handler) (*server, error) {
	listener, err := listen()
	if err != nil {
		return nil, err
	}
	httpServer := &http.Server{Handler: handler, Protocols: new(http.Protocols), ReadHeaderTimeout: 5 * time.Second}
	httpServer.Protocols.SetHTTP1(true)
	httpServer.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = httpServer.Serve(listener) }() // ends with Close
	return &server{addr: listener.Addr().String(), stop: func() { _ = httpServer.Close() }}, nil
}

func dialConnectGRPC(addr string, _ int) (*client, error) {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	return dialConnect(transport, addr, connecthttp.WithGRPC())
}

func dialConnectJSON(addr string, callers int) (*client, error) {
	return dialConnect(http1Transport(callers), addr, connecthttp.WithProtoJSON())
}

// http1Transport keeps one connection per caller, where the default keeps two in all and dials for the others each time.
func http1Transport(callers int) *http.Transport {
	dialer := &net.Dialer{Timeout: 2 * time.Second}
	return &http.Transport{DialContext: dialer.DialContext, MaxIdleConns: callers, MaxIdleConnsPerHost: callers}
}

func dialConnect(transport *http.Transport, addr string, options ...connecthttp.Option) (*client, error) {
	options = append(options, connecthttp.WithCompressMinBytes(compressMinBytes))
	httpClient := &http.Client{Transport: transport}
	auth := authv1connect.NewAuthServiceClient(connect.NewClient(connecthttp.NewTransport(httpClient, "http://"+addr, options...)))
	call := func(ctx context.Context) error {
		response, err := auth.ValidateToken(ctx, &authv1.ValidateTokenRequest{Token: token})
		if err != nil {
			return err
		}
		return checkMessage(response)
	}
	return &client{call: call, stop: transport.CloseIdleConnections}, nil
}
