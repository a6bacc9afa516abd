package rig

import (
	"context"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"syscall"
)

// childName is the argument that makes a program a [Child].
const childName = "rig-child"

// Child is this program once more, as a process of its own with cores of its
// own, whose methods are called with net/rpc: for a benchmark whose parts must
// not share a heap or a scheduler.
type Child struct {
	*Process
	calls *rpc.Client
}

// StartChild starts the program again; its main must begin with [ServeChild].
// What it prints goes to this process's standard error.
func StartChild(cpus string) (*Child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "parent"), os.NewFile(uintptr(pair[1]), "child")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	p, err := Start(Command{Path: self, Args: []string{childName}, CPUs: cpus, Files: []*os.File{theirs}, Log: os.Stderr})
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &Child{p, rpc.NewClient(conn)}, nil
}

// Call calls a method of what the child serves, such as "Crowd.Join", as
// [rpc.Client.Call].
func (c *Child) Call(ctx context.Context, method string, args, reply any) error {
	call := c.calls.Go(method, args, reply, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
		if call.Error != nil {
			return fmt.Errorf("%s: %w", method, call.Error)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", method, ctx.Err())
	}
}

// Close ends the child: it has nothing to save.
func (c *Child) Close() error {
	c.calls.Close()
	return c.Process.Close()
}

// ServeChild is for the beginning of main: in a child it serves the methods of
// the given values by the names of their types until the parent ends, and
// doesn't return.
func ServeChild(values ...any) {
	if len(os.Args) != 2 || os.Args[1] != childName {
		return
	}
	conn, err := net.FileConn(os.NewFile(3, "parent"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
	for _, v := range values {
		if err := rpc.Register(v); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
	}
	rpc.ServeConn(conn)
	os.Exit(0)
}
