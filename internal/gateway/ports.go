package gateway

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// refused is why the listen address can't be had, and the remedy.
func refused(listen string, err error) error {
	remedy := "choose another with -listen"
	switch _, text, _ := net.SplitHostPort(listen); {
	case errors.Is(err, syscall.EADDRINUSE):
		port, _ := net.LookupPort("tcp", text)
		remedy = "stop it, or " + remedy
		err = taken(err, "tcp", port)
	case errors.Is(err, syscall.EACCES):
		remedy = "ports below net.ipv4.ip_unprivileged_port_start take the capability CAP_NET_BIND_SERVICE: " + remedy
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		remedy = "this machine doesn't have that address (now): " + remedy
	}
	return fmt.Errorf("listen %s: %w; %s", listen, err, remedy)
}

// taken adds to an error of opening a port which program has it, as far as /proc
// tells this user.
func taken(err error, network string, port int) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	if who := holders(network, port); len(who) > 0 {
		return fmt.Errorf("%w; %s has %s port %d", err, strings.Join(who, " and "), strings.ToUpper(network), port)
	}
	return err
}

// holders are the programs that have a port of "tcp" (listening) or "udp" open in this
// network namespace: `"nginx" (process 812)`, or that this user may not see it. None:
// nobody has it.
func holders(network string, port int) []string {
	inodes := map[string]bool{}
	for _, family := range []string{"", "6"} {
		for _, inode := range socketsOf("/proc/net/"+network+family, columnInode, network == "tcp", port) {
			inodes["socket:["+inode+"]"] = true
		}
	}
	if len(inodes) == 0 {
		return nil
	}
	var who []string
	links, _ := filepath.Glob("/proc/[0-9]*/fd") // the pattern is good
	for _, dir := range links {
		pid := filepath.Base(filepath.Dir(dir))
		if pid == strconv.Itoa(os.Getpid()) || !opens(dir, inodes) {
			continue
		}
		name, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			continue // it has ended
		}
		who = append(who, fmt.Sprintf("%q (process %s)", strings.TrimSpace(string(name)), pid))
	}
	if len(who) == 0 {
		return []string{"a program that this user may not see"}
	}
	slices.Sort(who)
	return who
}

// opens tells whether a process has one of the sockets; dir is its /proc/PID/fd.
func opens(dir string, sockets map[string]bool) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false // another user's, or gone
	}
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		return err == nil && sockets[to]
	})
}

// Columns of the kernel's tables of sockets.
const (
	columnUser  = 7
	columnInode = 9
)

// socketsOf are the inodes of the sockets on a local port that a table of the kernel
// lists (proc_net_tcp(5)), or what another column of it says of them; listening: only
// those that take connections.
func socketsOf(table string, column int, listening bool, port int) []string {
	f, err := os.Open(table)
	if err != nil {
		return nil
	}
	defer f.Close()
	var found []string
	want := fmt.Sprintf(":%04X", port)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …
		fields := strings.Fields(lines.Text())
		if len(fields) > 9 && strings.HasSuffix(fields[1], want) && (!listening || fields[3] == "0A") {
			found = append(found, fields[column])
		}
	}
	return found
}

// strangers tells whether somebody else's program than root's, this user's and an
// owner's takes TCP connections on a port: it may only look like the gateway.
func strangers(port, owner int) bool {
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		for _, uid := range socketsOf(table, columnUser, true, port) {
			if uid != "0" && uid != strconv.Itoa(owner) && uid != strconv.Itoa(os.Getuid()) {
				return true
			}
		}
	}
	return false
}
