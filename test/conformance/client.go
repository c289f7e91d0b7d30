package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"sync"

	"github.com/0x1d/goplt/pkg/registry/static"
	"github.com/0x1d/goplt/pkg/rpc"
	conformancev1 "github.com/0x1d/goplt/test/conformance/gen/connectrpc/conformance/v1"
)

// runClient makes the calls that stdin asks for, several at a time, and says on stdout what came of each.
func runClient(ctx context.Context, protocol rpc.Protocol, stdin io.Reader, stdout io.Writer) (err error) {
	transports, err := newTransports(protocol)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, transports.close()) }()
	var (
		calls   sync.WaitGroup
		slots   = make(chan struct{}, 4*runtime.GOMAXPROCS(0))
		writing sync.Mutex
		lost    error // of writing
	)
	defer func() { err = errors.Join(err, lost) }()
	defer calls.Wait()
	for {
		request := new(conformancev1.ClientCompatRequest)
		if err := read(stdin, request); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		slots <- struct{}{}
		calls.Go(func() {
			defer func() { <-slots }()
			response := respond(ctx, transports, request)
			writing.Lock()
			defer writing.Unlock()
			lost = errors.Join(lost, write(stdout, response))
		})
	}
}

// respond makes one call and says what came of it.
func respond(ctx context.Context, transports *transports, request *conformancev1.ClientCompatRequest) *conformancev1.ClientCompatResponse {
	response := &conformancev1.ClientCompatResponse{TestName: request.GetTestName()}
	transport, err := transports.to(request)
	if err == nil {
		var result *conformancev1.ClientResponseResult
		if result, err = invoke(ctx, transport, request); err == nil {
			response.Result = &conformancev1.ClientCompatResponse_Response{Response: result}
			return response
		}
	}
	response.Result = &conformancev1.ClientCompatResponse_Error{Error: &conformancev1.ClientErrorResult{Message: err.Error()}}
	return response
}

// transports are those that the calls share: one for each server and configuration, as a program would have them, so that what one call shows
// of a server is known to the next.
type transports struct {
	protocol  rpc.Protocol
	addresses *static.Registry
	files     *pemFiles

	mu   sync.Mutex
	made map[transportKey]*rpc.Transport
}

// transportKey is what a transport depends on.
type transportKey struct {
	target  string
	version conformancev1.HTTPVersion // of the server: the next server may have the port of one that is gone
	limit   uint32
	gzip    bool
	tls     rpc.TLSConfig
}

func newTransports(protocol rpc.Protocol) (*transports, error) {
	addresses, err := static.New(nil)
	if err != nil {
		return nil, err
	}
	files, err := newPEMFiles()
	return &transports{protocol: protocol, addresses: addresses, files: files, made: make(map[transportKey]*rpc.Transport)}, err
}

// to returns the transport for a request.
func (t *transports) to(request *conformancev1.ClientCompatRequest) (*rpc.Transport, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	security, err := t.security(request)
	if err != nil {
		return nil, err
	}
	key := transportKey{
		target:  "static:///" + net.JoinHostPort(request.GetHost(), strconv.FormatUint(uint64(request.GetPort()), 10)),
		version: request.GetHttpVersion(), limit: request.GetMessageReceiveLimit(), tls: security,
	}
	switch request.GetCompression() {
	case conformancev1.Compression_COMPRESSION_IDENTITY:
	case conformancev1.Compression_COMPRESSION_GZIP:
		key.gzip = true
	default:
		return nil, fmt.Errorf("%v is not supported", request.GetCompression())
	}
	if made := t.made[key]; made != nil {
		return made, nil
	}
	made, err := rpc.NewTransport(key.target, t.addresses, rpc.WithClientConfig(t.config(key)))
	if err == nil {
		t.made[key] = made
	}
	return made, err
}

// config is what a program that takes the defaults would say, but for what the suite asks for.
func (t *transports) config(key transportKey) rpc.ClientConfig {
	config := rpc.DefaultClientConfig()
	config.Protocol, config.TLS = t.protocol, key.tls
	config.Timeout = 0 // the suite wants no call to have a deadline that it did not set
	config.CompressRequests, config.CompressMinBytes = key.gzip, 0
	if key.limit > 0 {
		config.MaxReceiveBytes = int(key.limit)
	}
	return config
}

func (t *transports) security(request *conformancev1.ClientCompatRequest) (rpc.TLSConfig, error) {
	authority, err := t.files.file(request.GetServerTlsCert())
	if err != nil || authority == "" {
		return rpc.TLSConfig{}, err
	}
	certificate, err := t.files.file(request.GetClientTlsCreds().GetCert())
	if err != nil {
		return rpc.TLSConfig{}, err
	}
	key, err := t.files.file(request.GetClientTlsCreds().GetKey())
	return rpc.TLSConfig{Enabled: true, CAFile: authority, CertFile: certificate, KeyFile: key}, err
}

// close ends all connections.
func (t *transports) close() error {
	errs := []error{t.files.remove()}
	for _, made := range t.made {
		errs = append(errs, made.Close())
	}
	return errors.Join(append(errs, t.addresses.Close())...)
}
