package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/pprof"
	"time"
)

// roleVariable is set in the environment of a child process, and holds its assignment as JSON.
const roleVariable = "GOPLT_BENCH_ROLE"

// answerGrace is how much longer than the run it asked for the parent waits for a child, before it gives up on it.
const answerGrace = 30 * time.Second

// assignment is what a child process is for.
type assignment struct {
	Peer    string `json:"peer"`
	Addr    string `json:"addr,omitempty"`    // of the server, for a client; a server has none
	Callers int    `json:"callers,omitempty"` // the most that a client will be asked for
	Profile string `json:"profile,omitempty"` // file for the CPU profile; empty for none

	Watch *watchTask `json:"watch,omitempty"` // of a process that watches the agent at Addr
}

// command is what the parent asks a child for, one per line on its standard input: a run, of a client, or else its usage. A child ends when
// that input does, and so with its parent.
type command struct {
	Callers  int           `json:"callers,omitempty"`
	Duration time.Duration `json:"duration,omitempty"`
	Deadline time.Duration `json:"deadline,omitempty"`
}

// reply is what a child answers, one per line on its standard output; the first says that it is ready.
type reply struct {
	Addr   string `json:"addr,omitempty"`
	Sample sample `json:"sample,omitzero"`
	Usage  usage  `json:"usage,omitzero"`
	Error  string `json:"error,omitempty"`

	Watch footprint `json:"watch,omitzero"`
}

// runChild does what a child process does and returns its exit status.
func runChild(role string, stdin io.Reader, stdout, stderr io.Writer) int {
	if err := serveParent(role, json.NewDecoder(stdin), json.NewEncoder(stdout)); err != nil {
		fmt.Fprintf(stderr, "bench: child %s: %v\n", role, err)
		return exitFailed
	}
	return exitOK
}

func serveParent(role string, commands *json.Decoder, replies *json.Encoder) error {
	var task assignment
	if err := json.Unmarshal([]byte(role), &task); err != nil {
		return err
	}
	if task.Watch != nil {
		return serveAsWatcher(task, commands, replies)
	}
	matching, err := matchingPeers("^" + regexp.QuoteMeta(task.Peer) + "$")
	if err != nil {
		return err
	}
	if task.Profile != "" {
		file, err := os.Create(task.Profile)
		if err != nil {
			return err
		}
		defer file.Close()
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	if task.Addr == "" {
		return serveAsServer(matching[0], commands, replies)
	}
	return serveAsClient(matching[0], task, commands, replies)
}

func serveAsServer(p peer, commands *json.Decoder, replies *json.Encoder) error {
	running, err := p.serve()
	if err != nil {
		return errors.Join(err, replies.Encode(reply{Error: err.Error()}))
	}
	defer running.stop()
	return answerAll(commands, replies, reply{Addr: running.addr}, func(command) reply { return reply{Usage: currentUsage()} })
}

func serveAsClient(p peer, task assignment, commands *json.Decoder, replies *json.Encoder) error {
	dialed, err := p.dial(task.Addr, task.Callers)
	if err != nil {
		return errors.Join(err, replies.Encode(reply{Error: err.Error()}))
	}
	defer dialed.stop()
	return answerAll(commands, replies, reply{Addr: task.Addr}, func(c command) reply {
		runtime.GC() // so that each run begins with the same heap
		got, err := load(dialed.call, c.Callers, c.Duration, c.Deadline)
		if err != nil {
			return reply{Error: err.Error()}
		}
		return reply{Sample: got}
	})
}

// answerAll says that the child is ready and answers commands until their input ends, also in the midst of a run: a child never
// outlives its parent, however that ended.
func answerAll(commands *json.Decoder, replies *json.Encoder, ready reply, answer func(command) reply) error {
	if err := replies.Encode(ready); err != nil {
		return err
	}
	ended := make(chan error, 1)
	answers := make(chan reply)
	go func() {
		for {
			var next command
			if err := commands.Decode(&next); err != nil {
				ended <- err
				return
			}
			go func() { answers <- answer(next) }() // the parent sends the next when it has the answer
		}
	}()
	for {
		select {
		case next := <-answers:
			if err := replies.Encode(next); err != nil {
				return err
			}
		case err := <-ended:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// child is a child process as its parent sees it.
type child struct {
	name    string
	process *exec.Cmd
	input   io.Closer
	ask     *json.Encoder
	answers *json.Decoder
	addr    string
}

// startChild starts a process of this program and waits until it is ready. It is killed when ctx ends.
func startChild(ctx context.Context, task assignment, stderr io.Writer) (*child, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	role, err := json.Marshal(task)
	if err != nil {
		return nil, err
	}
	process := exec.CommandContext(ctx, program)
	process.Env = append(os.Environ(), roleVariable+"="+string(role))
	process.Stderr = stderr
	input, err := process.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := process.Start(); err != nil {
		return nil, err
	}
	name := task.Peer + " server"
	switch {
	case task.Watch != nil:
		name = task.Peer
	case task.Addr != "":
		name = task.Peer + " client"
	}
	c := &child{name: name, process: process, input: input, ask: json.NewEncoder(input), answers: json.NewDecoder(output)}
	ready, err := c.next(answerGrace)
	if err != nil {
		return nil, errors.Join(err, c.stop())
	}
	c.addr = ready.Addr
	return c, nil
}

// do sends a command and waits for its answer.
func (c *child) do(wanted command) (reply, error) {
	if err := c.ask.Encode(wanted); err != nil {
		return reply{}, fmt.Errorf("%s: %w", c.name, err)
	}
	return c.next(wanted.Duration + answerGrace)
}

func (c *child) next(limit time.Duration) (reply, error) {
	watchdog := time.AfterFunc(limit, func() { _ = c.process.Process.Kill() }) // which ends the decoding below
	defer watchdog.Stop()
	var answer reply
	if err := c.answers.Decode(&answer); err != nil {
		return reply{}, fmt.Errorf("%s: no answer within %v: %w", c.name, limit, err)
	}
	if answer.Error != "" {
		return reply{}, fmt.Errorf("%s: %s", c.name, answer.Error)
	}
	return answer, nil
}

// stop ends the process by ending its input, and waits for it.
func (c *child) stop() error {
	watchdog := time.AfterFunc(answerGrace, func() { _ = c.process.Process.Kill() })
	defer watchdog.Stop()
	return cmp.Or(c.input.Close(), c.process.Wait())
}

// profileOf names the file for a process's CPU profile, or is empty if none is wanted.
func profileOf(directory string, p peer, side string) string {
	if directory == "" {
		return ""
	}
	return filepath.Join(directory, regexp.MustCompile(`\W+`).ReplaceAllString(p.name, "-")+"-"+side+".pprof")
}
