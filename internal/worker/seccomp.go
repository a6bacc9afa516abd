//go:build amd64 || arm64

package worker

import (
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

const seccompKnown = true

// refused are system calls that no pipeline needs: they change the machine, reach into
// other processes, or are doors into the kernel that are seldom looked at.
var refused = slices.Concat([]uint32{
	unix.SYS_ACCT, unix.SYS_ADD_KEY, unix.SYS_ADJTIMEX, unix.SYS_BPF, unix.SYS_CHROOT, unix.SYS_CLOCK_ADJTIME, unix.SYS_CLOCK_SETTIME,
	unix.SYS_DELETE_MODULE, unix.SYS_FANOTIFY_INIT, unix.SYS_FINIT_MODULE, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSOPEN,
	unix.SYS_FSPICK, unix.SYS_INIT_MODULE, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER, unix.SYS_IO_URING_SETUP, unix.SYS_KCMP,
	unix.SYS_KEXEC_FILE_LOAD, unix.SYS_KEXEC_LOAD, unix.SYS_KEYCTL, unix.SYS_MOUNT, unix.SYS_MOUNT_SETATTR, unix.SYS_MOVE_MOUNT,
	unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_OPEN_TREE, unix.SYS_PERF_EVENT_OPEN, unix.SYS_PIDFD_GETFD, unix.SYS_PIVOT_ROOT,
	unix.SYS_PROCESS_MADVISE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PTRACE, unix.SYS_QUOTACTL,
	unix.SYS_QUOTACTL_FD, unix.SYS_REBOOT, unix.SYS_REQUEST_KEY, unix.SYS_SETDOMAINNAME, unix.SYS_SETHOSTNAME, unix.SYS_SETNS,
	unix.SYS_SETTIMEOFDAY, unix.SYS_SWAPOFF, unix.SYS_SWAPON, unix.SYS_SYSLOG, unix.SYS_UMOUNT2, unix.SYS_UNSHARE,
	unix.SYS_USERFAULTFD, unix.SYS_VHANGUP,
}, refusedHere)

// namespaces are the flags of clone(2) that make new ones.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// Offsets in struct seccomp_data (seccomp(2)); of an argument the lower half, which
// comes first on both machines.
const (
	offNumber   = 0
	offArch     = 4
	offArgument = 16
)

// program builds a filter of seccomp.
type program []unix.SockFilter

func (p *program) statement(code uint16, k uint32) {
	*p = append(*p, unix.SockFilter{Code: code, K: k})
}

// unless skips the next skip statements unless the test of what was loaded holds.
func (p *program) unless(test uint16, k uint32, skip uint8) {
	*p = append(*p, unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, K: k, Jf: skip})
}

func (p *program) load(offset uint32) { p.statement(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offset) }

func (p *program) answer(errno uint32) {
	p.statement(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ERRNO|errno)
}

func (p *program) permit() { p.statement(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ALLOW) }

// begin refuses the system calls of other machines, whose numbers mean other things,
// and loads the number.
func (p *program) begin() {
	p.load(offArch)
	*p = append(*p, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: auditArch, Jt: 1})
	p.answer(uint32(unix.ENOSYS))
	p.load(offNumber)
	if otherABI != 0 {
		p.unless(unix.BPF_JGE, otherABI, 1)
		p.answer(uint32(unix.ENOSYS))
	}
}

// baseFilter is what every child has from its start: refused, no namespaces, and of
// the families of sockets only those that pipelines use.
func baseFilter(network, local bool) program {
	var p program
	p.begin()
	for _, number := range refused {
		p.unless(unix.BPF_JEQ, number, 1)
		p.answer(uint32(unix.EPERM))
	}
	p.unless(unix.BPF_JEQ, unix.SYS_CLONE3, 1)
	p.answer(uint32(unix.ENOSYS)) // its flags can't be read here: the C library takes clone then
	p.unless(unix.BPF_JEQ, unix.SYS_CLONE, 4)
	p.load(offArgument)
	p.unless(unix.BPF_JSET, namespaces, 1)
	p.answer(uint32(unix.EPERM))
	p.permit()
	p.unless(unix.BPF_JEQ, unix.SYS_PRLIMIT64, 4) // of itself only: another's CPU limit is its end
	p.load(offArgument)
	p.unless(unix.BPF_JEQ, 0, 1)
	p.permit()
	p.answer(uint32(unix.EPERM))
	families := []uint32{unix.AF_NETLINK}
	if network {
		families = append(families, unix.AF_INET, unix.AF_INET6)
	}
	if local { // socketpair(2) is another call, which all may make
		families = append(families, unix.AF_UNIX)
	}
	p.unless(unix.BPF_JEQ, unix.SYS_SOCKET, uint8(2+2*len(families)))
	p.load(offArgument)
	for _, family := range families {
		p.unless(unix.BPF_JEQ, family, 1)
		p.permit()
	}
	p.answer(uint32(unix.EAFNOSUPPORT))
	p.permit()
	return p
}

// noExecFilter refuses to start programs.
func noExecFilter() program {
	var p program
	p.begin()
	for _, number := range []uint32{unix.SYS_EXECVE, unix.SYS_EXECVEAT} {
		p.unless(unix.BPF_JEQ, number, 1)
		p.answer(uint32(unix.EACCES))
	}
	p.permit()
	return p
}

// filter puts a filter in force for the calling thread, or with
// SECCOMP_FILTER_FLAG_TSYNC for all.
func filter(p program, flags uintptr) error {
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	switch thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog))); {
	case errno != 0:
		return errno
	case thread != 0:
		return fmt.Errorf("thread %d has filters of its own", thread)
	}
	return nil
}
