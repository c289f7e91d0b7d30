package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/0x1d/goplt"
	"github.com/0x1d/goplt/config"
	"github.com/0x1d/goplt/pkg/registry"
	"github.com/0x1d/goplt/pkg/rpc"
)

// clearScreen moves to the top left of a terminal and clears from there (ECMA-48, CUP and ED).
const clearScreen = "\x1b[H\x1b[J"

// watch shows what a client knows of a target's instances, until ctx ends.
func (c *command) watch(ctx context.Context, loaded *config.Config, name string, interval time.Duration) error {
	if interval < 10*time.Millisecond {
		return usageError{fmt.Errorf("--interval %v is not at least 10ms", interval)}
	}
	text := loaded.Target(name)
	reg, closeRegistry, err := goplt.NewRegistry(loaded, goplt.WithLogger(c.logger(loaded)))
	if err != nil {
		return usageError{err}
	}
	defer closeRegistry()
	client := loaded.Client(name)
	client.Outlier.Enabled, client.Outlier.Probe.Interval = true, interval
	client.Balancer.SubsetSize = 0 // those beyond a subset are not probed
	client.Outlier.ConsecutiveFailures = cmp.Or(client.Outlier.ConsecutiveFailures, rpc.DefaultClientConfig().Outlier.ConsecutiveFailures)
	transport, err := rpc.NewTransport(text, reg, rpc.WithClientConfig(client))
	if err != nil {
		return usageError{c.explainTarget(loaded, reg, text, err)}
	}
	defer func() { _ = transport.Close() }()

	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	shown := watchView{command: c, redraws: isTerminal(c.stdout)}
	for {
		if err := shown.update(transport.Status()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil // interrupted, as meant
		case <-ticker.C:
		}
	}
}

// watchView is what resolve --watch shows, and what it showed last.
type watchView struct {
	command *command
	redraws bool // the table is kept up to date in place
	last    string
	failed  string // the registry's error, as told
}

// update shows a status, if it has anything new.
func (v *watchView) update(status rpc.Status) error {
	if status.Error != v.failed {
		v.failed = status.Error
		if status.Error != "" && !v.redraws {
			_, _ = fmt.Fprintf(v.command.stderr, "goplt: resolve %s: %s; what was shown last stands\n", status.Target, status.Error)
		}
	}
	if status.Updated.IsZero() && !v.redraws {
		return nil // nothing is known yet
	}
	lasting, err := json.Marshal(withoutFigures(status))
	if err != nil {
		return err
	}
	if string(lasting) == v.last && !v.redraws {
		return nil
	}
	v.last = string(lasting)
	if v.command.output == "json" {
		return printJSON(v.command.stdout, status)
	}
	if v.redraws {
		_, _ = io.WriteString(v.command.stdout, clearScreen)
	}
	return v.print(status)
}

// withoutFigures returns a status without what changes all the time.
func withoutFigures(status rpc.Status) rpc.Status {
	status.Updated = time.Time{}
	instances := make([]rpc.InstanceStatus, len(status.Instances))
	for at, instance := range status.Instances {
		if instance.Probe != nil {
			instance.Probe = &rpc.ProbeStatus{Error: instance.Probe.Error}
		}
		instance.Latency, instance.InFlight, instance.Connections, instance.EjectedUntil = 0, 0, 0, time.Time{}
		instances[at] = instance
	}
	status.Instances = instances
	return status
}

func (v *watchView) print(status rpc.Status) error {
	out := v.command.stdout
	_, _ = fmt.Fprintf(out, "%s  %s  %s\n", time.Now().Format(time.TimeOnly), status.Target, counted(len(status.Instances)))
	if status.Error != "" {
		_, _ = fmt.Fprintf(out, "the registry does not answer, and its last answer stands: %s\n", status.Error)
	}
	if status.Panic {
		_, _ = fmt.Fprintln(out, "too many instances are ejected: calls go to all of them")
	}
	head := []string{"INSTANCE", "ADDRESS", "ZONE", "WEIGHT", "HEALTH", "PROTOCOL", "IN FLIGHT", "LATENCY", "BREAKER", "EJECTION", "LAST CHANGE"}
	err := table(out, head, func(row func(...any)) {
		for _, i := range status.Instances {
			row(i.ID, i.Addr, orDash(i.Zone), i.Weight, orDash(health(i)), i.Protocol, i.InFlight, latency(i), i.Breaker, ejection(i),
				i.Change.At.Format(time.TimeOnly)+" "+i.Change.What)
		}
	})
	if err != nil {
		return err
	}
	known := make(map[string]bool, len(status.Instances))
	for _, i := range status.Instances {
		known[i.ID+i.Addr] = true
		if i.Probe != nil && i.Probe.Error != "" {
			_, _ = fmt.Fprintf(out, "%s: the probe fails: %s\n", i.ID, i.Probe.Error)
		}
	}
	shown := 0
	for _, change := range slices.Backward(status.Changes) { // the latest of each that is gone
		if key := change.Instance + change.Addr; !known[key] && shown < maxGone {
			known[key] = true
			shown++
			_, _ = fmt.Fprintf(out, "%s (%s) %s, at %s\n", change.Instance, change.Addr, change.What, change.At.Format(time.TimeOnly))
		}
	}
	_, err = fmt.Fprintln(out)
	return err
}

// maxGone is how many instances are shown that are gone.
const maxGone = 5

func counted(instances int) string {
	switch instances {
	case 0:
		return "no instances"
	case 1:
		return "1 instance"
	default:
		return fmt.Sprintf("%d instances", instances)
	}
}

// health is what the registry's checks say, and what the instance says itself where it says otherwise.
func health(i rpc.InstanceStatus) string {
	switch {
	case i.Probe != nil && i.Probe.Error != "" && i.Health == registry.HealthUnknown:
		return "probe fails"
	case i.Probe != nil && i.Probe.Error != "":
		return string(i.Health) + ", probe fails"
	case i.Probe != nil && i.Health == registry.HealthUnknown:
		return "probe passes"
	default:
		return string(i.Health)
	}
}

func latency(i rpc.InstanceStatus) string {
	switch {
	case i.Latency > 0:
		return i.Latency.Round(10 * time.Microsecond).String()
	case i.Probe != nil && i.Probe.Error == "": // else it is the time to a failure
		return "(" + i.Probe.Duration.Round(10*time.Microsecond).String() + ")"
	default:
		return "-"
	}
}

func ejection(i rpc.InstanceStatus) string {
	if i.EjectedUntil.IsZero() {
		return i.Ejection
	}
	return i.Ejection + " until " + i.EjectedUntil.Format(time.TimeOnly)
}

// isTerminal reports whether what is written to w is seen as it is written, by a person.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
