package camera

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"gateway/internal/media"
	"gateway/test/rig"
	"gateway/test/viewer"
)

// TestGuestMemoryIsLimited gives the gateway a control group whose memory runs out: who
// watches goes on, and who comes is refused with the reason until there is some.
func TestGuestMemoryIsLimited(t *testing.T) {
	ctx := guest(t)
	const root, group = "/sys/fs/cgroup", "/sys/fs/cgroup/gateway"
	shell(ctx, t, "mount -t cgroup2 none "+root+" && echo +memory >"+root+"/cgroup.subtree_control && mkdir "+group+" && echo 600M >"+group+"/memory.max")
	enter := func(group string) { // what is started from now on is of it
		rig.Check(t, os.WriteFile(group+"/cgroup.procs", fmt.Append(nil, os.Getpid()), 0))
	}
	enter(group)
	g := start(ctx, t, node(t), 320, 180)
	shell(ctx, t, "head -c 300M /dev/zero >/dev/shm/filler")
	enter(root)
	if !strings.Contains(g.Log(), `msg="memory is limited"`) || !strings.Contains(g.Log(), `limit="600 MiB"`) {
		t.Error("it hasn't seen its limit")
	}
	w := begin(ctx, t, g)
	w.wait(ctx, t, 3)

	// nine tenths and a bit of what there is, so that nothing is killed
	shell(ctx, t, "echo $(( $(awk '/^(anon|shmem) / { n += $2 } END { print n }' "+group+"/memory.stat) * 100 / 97 )) >"+group+"/memory.max")
	refused := func() (bool, error) {
		v, err := viewer.Watch(ctx, viewer.Options{URL: g.URL("/whep/webcam"), Codecs: []media.Codec{media.H264}})
		if err == nil {
			return false, v.Close()
		}
		var status *viewer.StatusError
		return errors.As(err, &status) && status.Status == http.StatusServiceUnavailable && strings.Contains(status.Body, "of memory that it is allowed are used"), err
	}
	rig.Check(t, rig.Until(ctx, "who comes to be refused", func() (bool, error) {
		ok, err := refused()
		if ok {
			t.Log(err)
			return true, nil
		}
		return false, err
	}))
	w.wait(ctx, t, 3)
	shell(ctx, t, "rm /dev/shm/filler")
	rig.Check(t, rig.Until(ctx, "others to be let in", func() (bool, error) {
		ok, err := refused()
		return !ok && err == nil, err
	}))
	w.wait(ctx, t, 3)
}
