package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/0x1d/goplt/pkg/registry"
)

func (c *command) resolveCommand() *cobra.Command {
	var (
		watch    bool
		interval time.Duration
	)
	cmd := &cobra.Command{
		Use:   "resolve TARGET",
		Short: "Show the instances that a registry knows of a target",
		Long: "Show the instances that a registry knows of a target: a URL such as consul:///auth?tag=blue or static:///127.0.0.1:8080,\n" +
			"or the name of a service, which is found where a client with the same configuration finds it. HEALTH is what the registry's checks\n" +
			"say; a registry of fixed addresses knows of none.\n\n" +
			"With --watch, go on as a client that makes no calls of its own but asks each instance for its health, and show what such a client knows:\n" +
			"zone, weight, what the registry's checks say, protocol, calls in flight, latency (a probe's, in brackets), circuit breaker,\n" +
			"ejection and the latest change. On a terminal the table is kept up to date; elsewhere it is printed again when something has changed.",
		Example: "  goplt resolve consul:///auth --watch\n  goplt resolve auth --registry static://127.0.0.1:8080",
		Args:    between(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			loaded, err := c.load()
			if err != nil {
				return err
			}
			if watch {
				return c.watch(cmd.Context(), loaded, args[0], interval)
			}
			if cmd.Flags().Changed("interval") {
				return usagef("--interval goes with --watch")
			}
			found, err := c.resolveOnce(cmd.Context(), loaded, loaded.Target(args[0]))
			if err != nil {
				return err
			}
			return c.printInstances(found)
		},
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "go on, and show what a client knows of each instance, until interrupted")
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "with --watch: time between two probes of an instance, and two looks; at least 10ms")
	return cmd
}

// instanceView is how an instance is shown.
type instanceView struct {
	ID       string            `json:"id"`
	Addr     string            `json:"addr"`
	Zone     string            `json:"zone,omitempty"`
	Weight   int               `json:"weight"`
	Health   registry.Health   `json:"health,omitempty"`
	Tags     []string          `json:"tags,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

func (c *command) printInstances(found []registry.Instance) error {
	if c.output == "json" {
		views := make([]instanceView, len(found))
		for i, instance := range found {
			views[i] = instanceView{instance.ID, instance.Addr(), instance.Zone, instance.Weight, instance.Health, instance.Tags, instance.Metadata}
		}
		return printJSON(c.stdout, views)
	}
	return table(c.stdout, []string{"INSTANCE", "ADDRESS", "ZONE", "WEIGHT", "HEALTH", "TAGS"}, func(row func(...any)) {
		for _, instance := range found {
			row(instance.ID, instance.Addr(), orDash(instance.Zone), instance.Weight, orDash(string(instance.Health)),
				orDash(strings.Join(instance.Tags, ",")))
		}
	})
}

// table writes aligned columns.
func table(w io.Writer, head []string, rows func(row func(...any))) error {
	aligned := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(aligned, strings.Join(head, "\t"))
	rows(func(cells ...any) {
		for i, cell := range cells {
			if i > 0 {
				_, _ = fmt.Fprint(aligned, "\t")
			}
			_, _ = fmt.Fprint(aligned, cell)
		}
		_, _ = fmt.Fprintln(aligned)
	})
	return aligned.Flush()
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
