package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/registry/memory"
	"github.com/0x1d/goplt/pkg/rpc"
)

// awaitSet calls Next until the set has the wanted number of instances, and returns it.
func awaitSet(t *testing.T, w registry.Watcher, wanted int) []registry.Instance {
	t.Helper()
	for {
		set, err := w.Next(t.Context())
		if err != nil {
			t.Fatalf("the set of %d does not come: %v", wanted, err)
		}
		if len(set) == wanted {
			return set
		}
	}
}

func watchService(t *testing.T, reg registry.ServiceRegistry, service string) registry.Watcher {
	t.Helper()
	w, err := reg.Watch(registry.Target{Service: service})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestServerUpdates: the registry has the new weight and metadata, beside what the server says of itself, under all names.
func TestServerUpdates(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	reg := memory.New()
	defer reg.Close()
	server := startServer(t, handlers, testConfig(), rpc.WithRegistration(reg, "words", "letters"))
	words, letters := watchService(t, reg, "words"), watchService(t, reg, "letters")
	own := make(map[string]registry.Instance)
	for _, w := range []registry.Watcher{words, letters} {
		found := awaitSet(t, w, 1)[0]
		own[found.Service] = found
	}
	expect := func(weight int, metadata map[string]string) {
		t.Helper()
		for _, w := range []registry.Watcher{words, letters} {
			got := awaitSet(t, w, 1)[0]
			want := own[got.Service].Clone()
			want.Weight = weight
			maps.Copy(want.Metadata, metadata)
			if !got.Equal(want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		}
	}
	for _, step := range []struct {
		update   func(context.Context) error
		weight   int
		metadata map[string]string
	}{
		{func(ctx context.Context) error { return server.SetWeight(ctx, 9) }, 9, nil},
		{func(ctx context.Context) error { return server.SetMetadata(ctx, map[string]string{"stage": "canary"}) }, 9, map[string]string{"stage": "canary"}},
		{func(ctx context.Context) error { return server.SetWeight(ctx, 0) }, 0, map[string]string{"stage": "canary"}},
		{func(ctx context.Context) error { return server.SetMetadata(ctx, map[string]string{"a": "b"}) }, 0, map[string]string{"a": "b"}},
		{func(ctx context.Context) error { return server.SetMetadata(ctx, nil) }, 0, nil},
	} {
		if err := step.update(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect(step.weight, step.metadata)
	}
	for want, err := range map[string]error{
		"weight 65536 is not within 0 to 65535": server.SetWeight(t.Context(), 65536),
		"weight -1 is not within 0 to 65535":    server.SetWeight(t.Context(), -1),
		`the key "goplt-tls" is reserved`:       server.SetMetadata(t.Context(), map[string]string{"goplt-tls": "true"}),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if err := server.SetWeight(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	expect(5, nil) // what was refused left nothing
}

// TestServerUpdatesWhatRuns: before Start, after Stop and where there is no registry, an update is an error that says so.
func TestServerUpdatesWhatRuns(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	expect := func(server *rpc.Server, want string) {
		t.Helper()
		for what, update := range map[string]func() error{
			"weight":   func() error { return server.SetWeight(t.Context(), 1) },
			"metadata": func() error { return server.SetMetadata(t.Context(), nil) },
		} {
			if err := update(); err == nil || err.Error() != "rpc: set "+what+": "+want {
				t.Errorf("set %s: %v; want %s", what, err, want)
			}
		}
	}
	reg := &recordingRegistry{}
	server, err := rpc.NewServer(handlers, rpc.WithServerConfig(testConfig()), rpc.WithRegistration(reg, "words"))
	if err != nil {
		t.Fatal(err)
	}
	expect(server, "the server is not started")
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := server.SetWeight(t.Context(), 2); err != nil {
		t.Error(err)
	}
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(server, "the server is stopped")
	expect(startServer(t, handlers, testConfig()), "the server is registered nowhere")
}

// TestServerUpdateFailsInPart: the registration that refused stays as it is, the others have the change, and the next update builds on each.
func TestServerUpdateFailsInPart(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	refused := errors.New("refused by policy")
	var mu sync.Mutex
	updated := make(map[string]registry.Instance)
	reg := &recordingRegistry{onUpdate: func(_ context.Context, instance registry.Instance) error {
		if instance.Service == "letters" && instance.Weight == 9 {
			return refused
		}
		mu.Lock()
		defer mu.Unlock()
		updated[instance.Service] = instance
		return nil
	}}
	server := startServer(t, handlers, testConfig(), rpc.WithRegistration(reg, "words", "letters"))
	err := server.SetWeight(t.Context(), 9)
	want := fmt.Sprintf("rpc: set weight of %s: refused by policy", reg.registered[1].ID)
	if !errors.Is(err, refused) || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if err := server.SetMetadata(t.Context(), map[string]string{"stage": "canary"}); err != nil {
		t.Fatal(err)
	}
	for service, weight := range map[string]int{"words": 9, "letters": reg.registered[1].Weight} {
		if got := updated[service]; got.Weight != weight || got.Metadata["stage"] != "canary" {
			t.Errorf("%s: updated to weight %d and %v, want weight %d and stage canary", service, got.Weight, got.Metadata, weight)
		}
	}
}

// TestServerUpdatesDoNotHoldUpStop: Stop deregisters while the registry does not answer an update; one that waits for its turn ends with its context.
func TestServerUpdatesDoNotHoldUpStop(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	entered, release := make(chan struct{}), make(chan struct{})
	reg := &recordingRegistry{onUpdate: func(context.Context, registry.Instance) error {
		close(entered)
		<-release
		return registry.ErrClosed
	}}
	server := startServer(t, handlers, testConfig(), rpc.WithRegistration(reg, "words"))
	first := make(chan error, 1)
	go func() { first <- server.SetWeight(t.Context(), 9) }()
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := server.SetMetadata(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("an update whose context ended while another was under way: %v", err)
	}
	if err := server.Stop(t.Context()); err != nil || len(reg.deregistered) != 1 {
		t.Errorf("stop: %v, %d deregistered", err, len(reg.deregistered))
	}
	close(release)
	if err := <-first; !errors.Is(err, registry.ErrClosed) {
		t.Errorf("the update under way: %v", err)
	}
}

// TestServerUpdatesAtOnce: whatever overlaps, the registry ends with the last of each kind, and nothing is lost between two kinds.
func TestServerUpdatesAtOnce(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	reg := memory.New()
	defer reg.Close()
	server, err := rpc.NewServer(handlers, rpc.WithServerConfig(testConfig()), rpc.WithRegistration(reg, "words", "letters"))
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	race := func() {
		for number := range 8 {
			group.Go(func() { _ = server.SetWeight(t.Context(), 1+number) })
			group.Go(func() { _ = server.SetMetadata(t.Context(), map[string]string{"number": "x"}) })
			group.Go(func() { server.Health().SetNotServing("words"); server.Health().SetServing("words") })
		}
	}
	race() // with Start
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	race()
	group.Wait()
	found := awaitSet(t, watchService(t, reg, "letters"), 1)[0]
	if found.Metadata["number"] != "x" || found.Weight == 0 || found.Weight > 8 {
		t.Errorf("in the end it is %+v", found)
	}
	awaitSet(t, watchService(t, reg, "words"), 1)
	race() // with Stop
	if err := server.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	group.Wait()
	awaitSet(t, watchService(t, reg, "words"), 0)
}

// TestServerTellsItsHealth: the registry hears of each change for the instances that it is about, and of none that Stop makes.
func TestServerTellsItsHealth(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	heard := make(chan string, 64)
	reg := &recordingRegistry{onHealth: func(service string, health registry.Health, note string) {
		heard <- fmt.Sprintf("%s is %s: %s", service, health, note)
	}}
	server, err := rpc.NewServer(handlers, rpc.WithServerConfig(testConfig()), rpc.WithRegistration(reg, "words", "letters"))
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want ...string) {
		t.Helper()
		got := make([]string, len(want))
		for at := range got {
			got[at] = <-heard
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("the registry hears %q, want %q", got, want)
		}
	}
	const ill = `%s is critical: the server says that it is not serving "%[1]s"`
	server.Health().SetNotServing("words")
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := []registry.Health{reg.registered[0].Health, reg.registered[1].Health}; got[0] != registry.HealthCritical || got[1] != registry.HealthPassing {
		t.Errorf("words and letters are registered as %s", got)
	}
	expect("letters is passing: ", fmt.Sprintf(ill, "words"))
	server.Health().SetServing("words")
	expect("words is passing: ")
	server.Health().SetNotServing("test.v1.Words") // is no name of an instance
	server.Health().SetNotServing("")
	expect(fmt.Sprintf(ill, "letters"), fmt.Sprintf(ill, "words"))
	server.Health().SetServing("")
	expect("letters is passing: ", "words is passing: ")
	if err := server.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if len(heard) != 0 {
		t.Errorf("while stopping, the registry hears %q", <-heard)
	}
}

// TestServerTakesItselfOut: in a registry that checks nothing by itself, an instance that does not serve is not found.
func TestServerTakesItselfOut(t *testing.T) {
	t.Parallel()
	_, handlers := newWords()
	reg := memory.New()
	defer reg.Close()
	server := startServer(t, handlers, testConfig(), rpc.WithRegistration(reg, "words", "letters"))
	words := watchService(t, reg, "words")
	found := awaitSet(t, words, 1)[0]
	server.Health().SetNotServing("words")
	awaitSet(t, words, 0)
	awaitSet(t, watchService(t, reg, "letters"), 1)
	server.Health().SetServing("words")
	if again := awaitSet(t, words, 1)[0]; !again.Equal(found) {
		t.Errorf("back, it is %+v, not %+v", again, found)
	}
}
