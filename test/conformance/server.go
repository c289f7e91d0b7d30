package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/0x1d/goplt/pkg/rpc"
	conformancev1 "github.com/0x1d/goplt/test/conformance/gen/connectrpc/conformance/v1"
	"github.com/0x1d/goplt/test/conformance/gen/connectrpc/conformance/v1/conformancev1connect"
)

// requestTimeout bounds the unary calls. It is there, as it is by default, and so long that a handler can tell a caller's deadline from it.
const requestTimeout = time.Hour

// runServer hosts the suite's service as stdin asks for it, says on stdout where, and stops at SIGTERM, or when ctx is done.
func runServer(ctx context.Context, stdin io.Reader, stdout io.Writer) (err error) {
	ctx, forget := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer forget()
	request := new(conformancev1.ServerCompatRequest)
	if err := read(stdin, request); err != nil {
		return err
	}
	files, err := newPEMFiles()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, files.remove()) }()
	config, err := serverConfig(request, files)
	if err != nil {
		return err
	}
	handlers := connect.NewServer()
	conformancev1connect.RegisterConformanceServiceHandler(handlers, service{})
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	server, err := rpc.NewServer(handlers, rpc.WithServerConfig(config), rpc.WithServerLogger(logger))
	if err != nil {
		return err
	}
	if err := server.Start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop(context.WithoutCancel(ctx))) }()
	host, service, err := net.SplitHostPort(server.Addr())
	if err != nil {
		return err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return err
	}
	response := &conformancev1.ServerCompatResponse{Host: host, Port: uint32(port), PemCert: request.GetServerCreds().GetCert()}
	if err := write(stdout, response); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// serverConfig is the default one, but for what the suite asks for. One server speaks every protocol over every version of HTTP, whichever the suite
// means to use.
func serverConfig(request *conformancev1.ServerCompatRequest, files *pemFiles) (rpc.ServerConfig, error) {
	config := rpc.DefaultServerConfig()
	config.Listen = "127.0.0.1:0"
	config.RequestTimeout = requestTimeout
	config.CompressMinBytes = 0
	if limit := request.GetMessageReceiveLimit(); limit > 0 {
		config.MaxReceiveBytes = int(limit)
	}
	if !request.GetUseTls() {
		return config, nil
	}
	config.TLS.Enabled = true
	var err error
	if config.TLS.CertFile, err = files.file(request.GetServerCreds().GetCert()); err != nil {
		return config, err
	}
	if config.TLS.KeyFile, err = files.file(request.GetServerCreds().GetKey()); err != nil {
		return config, err
	}
	config.TLS.CAFile, err = files.file(request.GetClientTlsCert())
	return config, err
}
