package registrytest

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/0x1d/goplt/pkg/registry"
)

// quiet is how long Next is seen to block before the suite believes it.
const quiet = 100 * time.Millisecond

func (s *suite) refusesImpossibleTargets() {
	for _, target := range []registry.Target{
		{},
		{Scheme: s.Scheme},
		{Scheme: s.Scheme, Service: "../kv/x"},
		{Service: "../kv/x"},
		{Scheme: "another", Service: "auth"},
		{Scheme: s.Scheme, Service: "auth", Params: map[string]string{"no-such-parameter": "x"}},
	} {
		watcher, err := s.Registry.Watch(target)
		if !errors.Is(err, registry.ErrInvalidTarget) {
			s.Errorf("Watch(%#v) = %v, %v; want ErrInvalidTarget", target, watcher, err)
		}
	}
}

func (s *suite) setIsTheCallersToKeep() {
	target, want := s.found()
	first := s.awaitAddresses(s.watch(s.Registry, target), want...)
	for at := range first {
		first[at].Host = "changed"
		for tag := range first[at].Tags {
			first[at].Tags[tag] = "changed"
		}
		for key := range first[at].Metadata {
			first[at].Metadata[key] = "changed"
		}
	}
	for _, instance := range s.awaitAddresses(s.watch(s.Registry, target), want...) {
		if slices.Contains(instance.Tags, "changed") || instance.Metadata["protocol"] == "changed" {
			s.Errorf("a change that one caller made reached another: %+v", instance)
		}
	}
}

func (s *suite) nextBlocksWithoutChange() {
	target, want := s.found()
	watcher := s.watch(s.Registry, target)
	s.awaitAddresses(watcher, want...)
	for range 2 { // the end of a context does not end the watch
		ctx, cancel := context.WithTimeout(s.Context(), quiet)
		set, err := watcher.Next(ctx)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			s.Fatalf("Next without a change = %v, %v; want it to block until its context ends", addresses(set), err)
		}
	}
	ctx, cancel := context.WithCancel(s.Context())
	cancel()
	if _, err := watcher.Next(ctx); !errors.Is(err, context.Canceled) {
		s.Errorf("Next with a cancelled context: %v", err)
	}
}

func (s *suite) watcherCloseEndsNext() {
	target, want := s.found()
	watcher, other := s.watch(s.Registry, target), s.watch(s.Registry, target)
	s.awaitAddresses(watcher, want...)
	ended := s.nextInBackground(watcher)
	for range 2 {
		if err := watcher.Close(); err != nil {
			s.Errorf("close the watcher: %v", err)
		}
	}
	s.mustEnd(ended)
	if _, err := watcher.Next(s.Context()); !errors.Is(err, registry.ErrClosed) {
		s.Errorf("Next after Close: %v; want ErrClosed", err)
	}
	s.awaitAddresses(other, want...)
}

func (s *suite) registryCloseEndsNext() {
	target, want := s.found()
	watcher, idle := s.watch(s.Registry, target), s.watch(s.Registry, target)
	s.awaitAddresses(watcher, want...)
	ended := s.nextInBackground(watcher)
	for range 2 {
		if err := s.Registry.Close(); err != nil {
			s.Errorf("close the registry: %v", err)
		}
	}
	s.mustEnd(ended)
	if _, err := idle.Next(s.Context()); !errors.Is(err, registry.ErrClosed) {
		s.Errorf("Next after the registry's Close: %v; want ErrClosed", err)
	}
	if _, err := s.Registry.Watch(target); !errors.Is(err, registry.ErrClosed) {
		s.Errorf("Watch after Close: %v; want ErrClosed", err)
	}
	if s.Registers {
		if _, err := s.Registry.Register(s.Context(), s.instance("auth", 1)); !errors.Is(err, registry.ErrClosed) {
			s.Errorf("Register after Close: %v; want ErrClosed", err)
		}
	}
}

func (s *suite) unknownServiceIsEmpty() {
	s.needsRegister()
	if set := s.awaitAddresses(s.watch(s.Registry, s.target(s.service()))); set == nil {
		s.Error("the empty set is nil, which looks like no answer")
	}
}

func (s *suite) registeredIsFoundInFull() {
	s.needsRegister()
	want := s.instance(s.service(), 1)
	want.Host = "::1"
	s.register(want)
	for name, target := range map[string]registry.Target{
		"with its scheme": s.target(want.Service), "without a scheme": {Service: want.Service},
	} {
		got := s.awaitAddresses(s.watch(s.Registry, target), want.Addr())[0]
		if got.Revision == 0 {
			s.Errorf("%s: a registered instance has no revision", name)
		}
		got.Revision, want.Health = want.Revision, settled(got.Health)
		if diff := cmp.Diff(want, got); diff != "" {
			s.Errorf("%s, the instance found is not the one registered (-want +got):\n%s", name, diff)
		}
	}
}

func (s *suite) tagSelects() {
	s.needsRegister()
	service := s.service()
	blue, green := s.instance(service, 1), s.instance(service, 2)
	blue.Tags, green.Tags = []string{"blue"}, []string{"green"}
	s.register(blue)
	s.register(green)
	target := s.target(service)
	target.Params = map[string]string{"tag": "green"}
	s.awaitAddresses(s.watch(s.Registry, target), green.Addr())
}

// nextInBackground calls Next, and sends its error.
func (s *suite) nextInBackground(watcher registry.Watcher) <-chan error {
	ended := make(chan error, 1)
	go func() {
		_, err := watcher.Next(s.Context())
		ended <- err
	}()
	return ended
}

// mustEnd waits for a Next that was closed.
func (s *suite) mustEnd(ended <-chan error) {
	s.Helper()
	select {
	case err := <-ended:
		if !errors.Is(err, registry.ErrClosed) {
			s.Errorf("Next under way at Close: %v; want ErrClosed", err)
		}
	case <-time.After(s.Within):
		s.Fatal("Next does not end by Close")
	}
}
