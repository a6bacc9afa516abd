package worker

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"gateway/internal/config"
)

// Confinement is what a child may do, by Landlock and seccomp: it gets no further
// privileges, has few of root's, starts no other programs, and reaches nothing that isn't listed. Paths
// that aren't there are left out; folders count with all that is below.
type Confinement struct {
	Read    []string // files and folders
	Write   []string // likewise; read, too
	Devices []string // nodes and folders of them: opened, and asked by ioctl
	Run     []string // programs; read, too
	List    []string // folders of which it is seen what is in them and below, no more

	Network bool // IP sockets
	// Local are sockets of other programs of this machine (unix(7)), as X and sound servers have
	// them: all that this user may write. Seccomp sees no paths, and Landlock tells them apart
	// from ABI 9 on, Linux 7.1.
	Local bool
}

// Confined tells which means of confinement the kernel has, and the remedy for one
// that is missing, for people.
func Confined() (has, missing []string) {
	has = append(has, "no new privileges")
	if abi, err := landlockABI(); err == nil {
		has = append(has, fmt.Sprintf("Landlock (ABI %d)", abi))
	} else {
		missing = append(missing, fmt.Sprintf("Landlock (%v): children may open every file that the gateway may; take a kernel of 5.13 or newer with landlock in its lsm= list", err))
	}
	switch _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&seccompErrno))); {
	case !seccompKnown:
		missing = append(missing, "seccomp: this program has no filter for "+runtime.GOARCH)
	case errno != 0:
		missing = append(missing, fmt.Sprintf("seccomp (%v): children may make every system call; take a kernel with CONFIG_SECCOMP_FILTER", errno))
	default:
		has = append(has, "seccomp")
	}
	return has, missing
}

var seccompErrno uint32 = unix.SECCOMP_RET_ERRNO

// apply confines the calling thread and whatever it starts, for good. The goroutine
// is locked to it, and ends with it. What the kernel doesn't have is left out.
func (c *Confinement) apply() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if err := dropCapabilities(); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	if abi, err := landlockABI(); err == nil {
		if err := c.landlock(abi); err != nil {
			return fmt.Errorf("landlock: %w", err)
		}
	}
	if err := filter(baseFilter(c.Network, c.Local), 0); err != nil && !unavailable(err) {
		return fmt.Errorf("seccomp: %w", err)
	}
	return nil
}

// kept are the capabilities (capabilities(7)) that a child keeps of the gateway's, where
// that is started by root: to open devices, to be scheduled first, to bind low ports.
// With the others it could, for one, read the memory of all processes.
const kept = 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_FOWNER | 1<<unix.CAP_NET_BIND_SERVICE |
	1<<unix.CAP_IPC_LOCK | 1<<unix.CAP_SYS_NICE | 1<<unix.CAP_SYS_RESOURCE

// dropCapabilities gives up all but those.
func dropCapabilities() error {
	for c := range unix.CAP_LAST_CAP + 1 {
		if kept>>c&1 == 0 { // EPERM: an ordinary user's thread, which has none to give to what it starts
			unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return err
	}
	for i := range sets {
		keep := uint32(uint64(kept) >> (32 * i))
		sets[i].Effective &= keep
		sets[i].Permitted &= keep
		sets[i].Inheritable &= keep
	}
	return unix.Capset(&header, &sets[0])
}

// unavailable tells whether that is how a kernel says that it has no such thing.
func unavailable(err error) bool {
	return errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)
}

// confinedEnv is set for children that are confined. That one has a filter of seccomp
// says nothing: in a container all processes do.
const confinedEnv = config.EnvPrefix + "WORKER_CONFINED"

// noPrograms keeps this process, with all its threads, from starting programs. It is
// called once those that prepare GStreamer have run. A process that isn't confined
// is left alone.
func noPrograms() error {
	if os.Getenv(confinedEnv) == "" {
		return nil
	}
	if err := filter(noExecFilter(), unix.SECCOMP_FILTER_FLAG_TSYNC); err != nil && !unavailable(err) {
		return err
	}
	return nil
}

// Rights of Landlock (landlock(7)): of an ABI those below its bit.
const (
	mayRun    = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE
	mayRead   = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	mayWrite  = mayRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE
	mayDrive  = mayRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	ofFiles   = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	inABI1    = 1<<13 - 1
	noTCP     = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	netABI    = 4
	ioctlABI  = 5
	scopedABI = 6

	// Kernels without this erratum mended keep a thread from signals to its own process,
	// which the Go runtime needs (landlock_create_ruleset(2), LANDLOCK_CREATE_RULESET_ERRATA).
	landlockErrata = 1 << 1
	sameProcess    = 1 << 1
)

func landlockABI() (int, error) {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0, errno
	}
	return int(abi), nil
}

// handled are the rights to files that an ABI knows.
func handled(abi int) uint64 {
	rights := uint64(inABI1)
	for since, right := range map[int]uint64{2: unix.LANDLOCK_ACCESS_FS_REFER, 3: unix.LANDLOCK_ACCESS_FS_TRUNCATE, ioctlABI: unix.LANDLOCK_ACCESS_FS_IOCTL_DEV} {
		if abi >= since {
			rights |= right
		}
	}
	return rights
}

func (c *Confinement) landlock(abi int) error {
	attr := unix.LandlockRulesetAttr{Access_fs: handled(abi)}
	if abi >= netABI && !c.Network {
		attr.Access_net = noTCP
	}
	if abi >= scopedABI {
		if errata, _, _ := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, landlockErrata); errata&sameProcess != 0 {
			attr.Scoped = unix.LANDLOCK_SCOPE_SIGNAL
		}
		if !c.Local {
			attr.Scoped |= unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
		}
	}
	size := unsafe.Sizeof(attr)
	if abi < netABI { // a kernel takes what it doesn't know where that is zero
		size = unsafe.Sizeof(attr.Access_fs)
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return errno
	}
	rules := int(fd)
	defer unix.Close(rules)
	for _, l := range []struct {
		paths  []string
		rights uint64
	}{{c.Read, mayRead}, {c.Write, mayWrite}, {c.Devices, mayDrive}, {c.Run, mayRun}, {c.List, unix.LANDLOCK_ACCESS_FS_READ_DIR}} {
		for _, path := range l.paths {
			if err := allow(rules, path, l.rights&attr.Access_fs); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(rules), 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// allow adds rights to a path, and what is below it, to a set of rules.
func allow(rules int, path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil // nothing to allow
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= ofFiles
	}
	attr := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rules), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&attr)), 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
