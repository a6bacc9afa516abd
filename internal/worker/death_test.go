package worker_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"gateway/internal/config"
)

// Whatever ends the process is told in words; the gateway goes on.
func TestDeathIsToldWithItsReason(t *testing.T) {
	t.Parallel()
	for signal, want := range map[syscall.Signal]string{
		syscall.SIGKILL: "was killed (SIGKILL)", syscall.SIGSEGV: "crashed: SIGSEGV", syscall.SIGABRT: "crashed: SIGABRT",
		syscall.SIGSTOP: "told nothing for 2s",
	} {
		t.Run(unix.SignalName(signal), func(t *testing.T) {
			s := newSink()
			l, _ := newLauncher()
			p := run(t, l, picture, config.Worker{}, s)
			start(t, p, "1", vp8)
			s.until(t, "packets", func() bool { return s.packets["1"] > 0 })
			if err := unix.Kill(p.PID(), signal); err != nil {
				t.Fatal(err)
			}
			s.until(t, "the failure", func() bool { return s.failure != nil })
			if !strings.Contains(s.failure.Error(), want) {
				t.Errorf("failed with %q, want %q", s.failure, want)
			}
			c, crashed := l.LastCrash()
			if !crashed || l.Crashes()["door"] != 1 || c.Stream != "door" || c.Feed != "video" || !strings.Contains(c.Reason, want) {
				t.Errorf("the last crash is %+v", c)
			}
			if signal == syscall.SIGSEGV && !strings.Contains(c.Words, "goroutine ") {
				t.Errorf("no stack in %q", c.Words)
			}
			if err := p.SetBitrate("1", 300_000, true); err == nil || !strings.Contains(err.Error(), want) {
				t.Error(err)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// crashing is a plugin whose element does on the third buffer what it is told.
const crashing = `
#include <gst/gst.h>
#include <gst/base/gstbasetransform.h>
#include <stdlib.h>
typedef struct { GstBaseTransform parent; int how, buffers; } Crash;
typedef struct { GstBaseTransformClass parent; } CrashClass;
G_DEFINE_TYPE(Crash, crash, GST_TYPE_BASE_TRANSFORM)
static GstFlowReturn work(GstBaseTransform *t, GstBuffer *b) {
  Crash *c = (Crash *)t;
  if (++c->buffers == 3) {
    if (c->how == 0) *(volatile int *)16 = 1;
    if (c->how == 1) abort();
    if (c->how == 2) g_error("it can't go on");
    if (c->how == 3) exit(3);
    while (c->how == 4) c->buffers = 3;
  }
  return GST_FLOW_OK;
}
static void set(GObject *o, guint id, const GValue *v, GParamSpec *s) { ((Crash *)o)->how = g_value_get_int(v); }
static GstStaticPadTemplate sink = GST_STATIC_PAD_TEMPLATE("sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS_ANY);
static GstStaticPadTemplate src = GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS_ANY);
static void crash_class_init(CrashClass *k) {
  k->parent.transform_ip = work;
  G_OBJECT_CLASS(k)->set_property = set;
  g_object_class_install_property(G_OBJECT_CLASS(k), 1, g_param_spec_int("how", "how", "how", 0, 9, 0, G_PARAM_WRITABLE));
  gst_element_class_set_static_metadata(GST_ELEMENT_CLASS(k), "Crash", "Filter", "crashes", "-");
  gst_element_class_add_static_pad_template(GST_ELEMENT_CLASS(k), &sink);
  gst_element_class_add_static_pad_template(GST_ELEMENT_CLASS(k), &src);
}
static void crash_init(Crash *c) {}
static gboolean init(GstPlugin *p) { return gst_element_register(p, "crash", 0, crash_get_type()); }
#define PACKAGE "crash"
GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, crash, "crashes", init, "1", "LGPL", "crash", "-")
`

// installCrashing has children find that plugin.
func installCrashing(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "crash.c"), []byte(crashing), 0o600); err != nil {
		t.Fatal(err)
	}
	flags, err := exec.Command("pkg-config", "--cflags", "--libs", "gstreamer-1.0", "gstreamer-base-1.0").Output()
	if err != nil {
		t.Fatal(err)
	}
	cc := exec.Command("cc", append([]string{"-shared", "-fPIC", "-o", filepath.Join(dir, "libgstcrash.so"), filepath.Join(dir, "crash.c")}, strings.Fields(string(flags))...)...)
	if out, err := cc.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Setenv("GST_PLUGIN_PATH", dir)
	t.Setenv("GST_REGISTRY", filepath.Join(dir, "registry"))
}

// An element that crashes in its streaming thread, as a driver's or a plugin's fault
// does: what is told names the signal, the library and the thread.
func TestCrashNamesItsPlace(t *testing.T) {
	installCrashing(t)
	for how, want := range []string{
		"crashed: SIGSEGV in libgstcrash.so, thread ", "crashed: SIGABRT in libgstcrash.so, thread ",
		"crashed: SIGTRAP in libglib-2.0.so.0", "ended with exit status 3",
	} {
		s := newSink()
		l, _ := newLauncher()
		feed := picture
		feed.Capture += fmt.Sprintf(" ! crash how=%d", how)
		run(t, l, feed, config.Worker{}, s)
		s.until(t, "the failure", func() bool { return s.failure != nil })
		if !strings.Contains(s.failure.Error(), want) {
			t.Errorf("failed with %q, want %q", s.failure, want)
		}
		c, _ := l.LastCrash()
		if how < 2 && !strings.Contains(c.Words, "libgstcrash.so(+0x") {
			t.Errorf("no stack in %q", c.Words)
		}
		if how == 2 && !strings.Contains(c.Words, "it can't go on") {
			t.Errorf("no last words in %q", c.Words)
		}
	}
}

// A plugin that spins at a priority before everything else would take a core for good.
func TestThreadThatSpinsAtItsPriorityIsEnded(t *testing.T) {
	refused := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this
		refused <- unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0)
	}()
	if err := <-refused; err != nil {
		t.Skipf("SCHED_FIFO can't be had here: %v", err)
	}
	installCrashing(t)
	s := newSink()
	l, log := newLauncher()
	feed := picture
	feed.Capture += " ! crash how=4"
	p := run(t, l, feed, config.Worker{Scheduler: "fifo"}, s)
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.PID()))
	if err == nil && !strings.Contains(strings.Join(strings.Fields(string(limits)), " "), "Max realtime timeout 1000000 2000000 us") {
		t.Errorf("limits:\n%s", limits)
	}
	s.until(t, "the failure", func() bool { return s.failure != nil })
	for _, want := range []string{"spun: a thread", "didn't wait for anything for 1s", "libgstcrash.so"} {
		if !strings.Contains(s.failure.Error(), want) {
			t.Errorf("failed with %q, want %q", s.failure, want)
		}
	}
	if strings.Contains(log.String(), "worker limit") {
		t.Error(log)
	}
}
