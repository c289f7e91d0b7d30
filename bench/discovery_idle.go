package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/0x1d/goplt/internal/consultest"
)

const (
	idleInstances = 3 // of each service
	// agentConnections is how many connections of one address an agent accepts unless it is told otherwise.
	agentConnections = 200
)

// idleCell is one kind of watches, so many of them.
type idleCell struct {
	Kind     string        `json:"kind"`
	Count    int           `json:"watches"`
	Limited  bool          `json:"limited"` // whether the agent has its usual limit of connections
	Weight   footprint     `json:"weight"`
	AgentCPU time.Duration `json:"agent_cpu"` // while the watches cost what weight says
}

// perSecond is a time per second that went by, in ms.
func (c *idleCell) perSecond(d time.Duration) float64 {
	return inMilliseconds(d) / c.Weight.Elapsed.Seconds()
}

// bytesPerWatch is heap and stacks together.
func (c *idleCell) bytesPerWatch() float64 {
	return float64(c.Weight.Heap+c.Weight.Stacks) / float64(c.Count)
}

func (c *idleCell) goroutinesPerWatch() float64 {
	return float64(c.Weight.Goroutines) / float64(c.Count)
}

// measureIdle has processes of their own watch services that do not change. Kinds whose every watch takes a connection are measured a second time
// where there are more than an agent accepts, at an agent that accepts them all.
func measureIdle(ctx context.Context, t consultest.T, usual *consultest.Agent, p discoveryPlan, progress io.Writer) ([]idleCell, error) {
	var unlimited *consultest.Agent
	var cells []idleCell
	for _, count := range p.watches {
		for _, kind := range p.kinds {
			cell, err := measureWatches(ctx, usual.Address, usual.PID(), idleCell{Kind: kind.name, Count: count, Limited: true}, p.duration, progress)
			if err != nil {
				return nil, err
			}
			cells = append(cells, cell)
			if cell.Weight.Known == count || count < agentConnections {
				continue
			}
			if unlimited == nil {
				unlimited = consultest.Start(t, consultest.WithoutConnectionLimit())
				registerIdle(unlimited, slices.Max(p.watches))
			}
			cell, err = measureWatches(ctx, unlimited.Address, unlimited.PID(), idleCell{Kind: kind.name, Count: count}, p.duration, progress)
			if err != nil {
				return nil, err
			}
			cells = append(cells, cell)
		}
	}
	return cells, nil
}

// registerIdle registers the services, on a node that has no agent, as those of other machines are.
func registerIdle(agent *consultest.Agent, count int) {
	const node = "elsewhere"
	operations := []map[string]any{{"Node": map[string]any{"Verb": "set", "Node": map[string]any{"Node": node, "Address": "127.0.0.1"}}}}
	flush := func() {
		agent.PutJSON("/v1/txn", operations)
		operations = nil
	}
	for _, name := range serviceNames(count) {
		for nth := range idleInstances {
			operations = append(operations, map[string]any{"Service": map[string]any{"Verb": "set", "Node": node, "Service": map[string]any{
				"ID": fmt.Sprintf("%s-%d", name, nth), "Service": name, "Address": "127.0.0.1", "Port": 20_000 + nth,
				"Tags": []string{"v1"}, "Meta": map[string]string{"zone": "a"},
			}}})
		}
		if len(operations) > 120 { // Consul takes 128 in one transaction
			flush()
		}
	}
	if len(operations) > 0 {
		flush()
	}
}

// measureWatches has a process watch an agent, whose process is pid, lets as long go by as it measures then, and measures.
func measureWatches(ctx context.Context, agent string, pid int, cell idleCell, duration time.Duration, progress io.Writer) (_ idleCell, err error) {
	fmt.Fprintf(progress, "%d watches, %s\n", cell.Count, cell.Kind)
	task := assignment{Peer: cell.Kind, Addr: agent, Watch: &watchTask{Kind: cell.Kind, Count: cell.Count}}
	watching, err := startChild(ctx, task, progress)
	if err != nil {
		return cell, err
	}
	defer func() { err = errors.Join(err, watching.stop()) }()
	if _, err := watching.do(command{Duration: duration}); err != nil {
		return cell, err
	}
	before := processCPU(pid)
	got, err := watching.do(command{Duration: duration})
	if err != nil {
		return cell, err
	}
	cell.AgentCPU, cell.Weight = processCPU(pid)-before, got.Watch
	return cell, nil
}

func writeIdle(out *strings.Builder, cells []idleCell, p discoveryPlan) {
	fmt.Fprintf(out, "\nidle watches, each kind in a process of its own, of services with %d instances that do not change: over %s, as long after\n"+
		"they began; each connection carries one query at a time; in parentheses the ratio to as many of %q that all\n"+
		"know their instances\n", idleInstances, p.duration, watchLoop)
	for _, count := range p.watches {
		fmt.Fprintln(out)
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintf(table, "%d watches\tknow instances\tgoroutines each\tKiB each\theap\tstacks\tconnections\tqueries/s\tCPU ms/s client\tagent\t\n", count)
		base := baseOf(cells, count)
		for _, cell := range cells {
			if cell.Count == count {
				writeIdleCell(table, cell, base)
			}
		}
		_ = table.Flush() // out is a strings.Builder, which does not fail
	}
}

// baseOf returns the loops that the other cells are compared with, nil if none of them work.
func baseOf(cells []idleCell, count int) *idleCell {
	for at := range cells {
		if cell := &cells[at]; cell.Kind == watchLoop && cell.Count == count && cell.Weight.Known == count {
			return cell
		}
	}
	return nil
}

func writeIdleCell(table io.Writer, cell idleCell, base *idleCell) {
	name := cell.Kind
	if !cell.Limited {
		name += ", agent without a limit"
	}
	weight := cell.Weight
	ratio := func(of func(*idleCell) float64) string {
		if base == nil || weight.Known < cell.Count {
			return ""
		}
		return fmt.Sprintf(" (%.2f)", of(&cell)/of(base))
	}
	fmt.Fprintf(table, "%s\t%d\t%.2f%s\t%.1f%s\t%.1f\t%.1f\t%d\t%.1f\t%.1f\t%.1f\t\n", name, weight.Known,
		cell.goroutinesPerWatch(), ratio((*idleCell).goroutinesPerWatch), cell.bytesPerWatch()/1024, ratio((*idleCell).bytesPerWatch),
		float64(weight.Heap)/1024/float64(cell.Count), float64(weight.Stacks)/1024/float64(cell.Count), weight.Connections,
		float64(weight.Queries)/weight.Elapsed.Seconds(), cell.perSecond(weight.CPU), cell.perSecond(cell.AgentCPU))
}
