package docker

import (
	"bytes"
	"context"
	"fmt"
	"image/jpeg"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const top = "../.."

func TestParseJoinsContinuedLines(t *testing.T) {
	got, err := Parse("# head\nFROM a AS b\n\nRUN one \\\n # why\n && two\nCMD [\"x\"]\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []Instruction{{2, "FROM", "a AS b"}, {4, "RUN", "one && two"}, {7, "CMD", `["x"]`}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// The whole Dockerfile in clean chroots: its packages install, the gateway
// builds, and starts as the user that the image names, without the machine's own
// packages, caches or network. make test-docker runs it.
func TestDockerfileBuildsAGatewayThatServes(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("chroots need root")
	}
	if _, err := exec.LookPath("debootstrap"); err != nil {
		t.Skip("debootstrap isn't installed; make test-docker installs it")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	image := buildImage(ctx, t)

	if image.User == "root" || image.User == "" {
		t.Errorf("the image runs as %q", image.User)
	}
	compilers := image.Command(ctx, "0:0", nil, "sh", "-c", "command -v gcc || command -v go")
	if out, err := compilers.Output(); err == nil {
		t.Errorf("the image has a compiler: %s", out)
	}
	serve(ctx, t, image)
}

func buildImage(ctx context.Context, t *testing.T) *Image {
	t.Helper()
	dir := t.TempDir()
	var output bytes.Buffer
	started := time.Now()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v\n%s", what, err, tail(output.String(), 60))
		}
		t.Logf("%5.0f s: %s", time.Since(started).Seconds(), what)
	}
	text, err := os.ReadFile(filepath.Join(top, "Dockerfile"))
	must("Dockerfile", err)
	instructions, err := Parse(string(text))
	must("Dockerfile parsed", err)

	b := &Builder{
		Dir: filepath.Join(dir, "stages"), Base: filepath.Join(dir, "base"), Context: filepath.Join(dir, "context"),
		Env: waysOut(), Args: map[string]string{"VERSION": "chroot-test"}, Output: &output,
	}
	goroot, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	must("go env GOROOT", err)
	b.GoRoot = strings.TrimSpace(string(goroot))
	must("stages", os.Mkdir(b.Dir, 0o755))
	must("build context", makeContext(ctx, b))
	must("clean Debian", makeBase(ctx, b))
	image, err := b.Build(ctx, instructions)
	must("Dockerfile built", err)
	return image
}

// makeContext copies what .dockerignore, which holds top-level names only, leaves.
func makeContext(ctx context.Context, b *Builder) error {
	if err := os.Mkdir(b.Context, 0o755); err != nil {
		return err
	}
	ignored, err := os.ReadFile(filepath.Join(top, ".dockerignore"))
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(top)
	if err != nil {
		return err
	}
	names := strings.Fields(string(ignored))
	for _, e := range entries {
		if slices.Contains(names, e.Name()) {
			continue
		}
		if err := b.tool(ctx, "cp", "-a", filepath.Join(top, e.Name()), b.Context); err != nil {
			return err
		}
	}
	return nil
}

// makeBase makes what debian:bookworm-slim is: a minimal Debian, here from the
// mirrors that this machine's apt is told to use.
func makeBase(ctx context.Context, b *Builder) error {
	targets, err := exec.CommandContext(ctx, "apt-get", "indextargets",
		"--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages", "Origin: Debian").Output()
	if err != nil {
		return err
	}
	var mirror, sources string
	for line := range strings.Lines(string(targets)) {
		words := strings.Fields(line)
		if len(words) != 3 {
			continue
		}
		if words[1] == "bookworm" {
			mirror = words[0]
		}
		sources += "deb " + strings.Join(words, " ") + "\n"
	}
	if mirror == "" {
		return fmt.Errorf("this machine's apt knows no bookworm")
	}
	if err := b.tool(ctx, "debootstrap", "--variant=minbase", "bookworm", b.Base, mirror); err != nil {
		return err
	}
	settings, err := exec.CommandContext(ctx, "apt-config", "dump", "Acquire").Output()
	if err != nil {
		return err
	}
	network := regexp.MustCompile(`(?m)^Acquire::(https?|Check|Retries).*\n`)
	files := map[string]string{
		"etc/apt/sources.list":      sources,
		"etc/apt/apt.conf.d/99host": strings.Join(network.FindAllString(string(settings), -1), ""),
		"usr/sbin/policy-rc.d":      "#!/bin/sh\nexit 101\n", // as in the images: nothing is started
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(b.Base, name), []byte(text), 0o755); err != nil {
			return err
		}
	}
	for _, name := range []string{"/etc/resolv.conf", "/etc/hosts"} {
		if err := b.tool(ctx, "cp", "-L", name, filepath.Join(b.Base, name)); err != nil {
			return err
		}
	}
	const bundle = "/etc/ssl/certs/ca-certificates.crt" // golang:… has one; it may hold authorities of this network
	return b.tool(ctx, "install", "-D", "-m", "644", bundle, filepath.Join(b.Base, "run/ca.crt"))
}

// waysOut is what an engine would hand on too: proxies, and where modules come from.
func waysOut() []string {
	env := []string{"SSL_CERT_FILE=/run/ca.crt"}
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "GOPROXY", "GOSUMDB", "GONOSUMDB"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// serve starts the image's command in a network of its own, which has loopback
// only, and waits until the image's own health check is content.
func serve(ctx context.Context, t *testing.T, image *Image) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	run := image.Command(ctx, image.User, []string{"HOME=/var/lib/gateway"}, append(image.Entrypoint, image.Cmd...)...)
	gateway := ownGroup(exec.CommandContext(ctx, "unshare", append([]string{"--net", "sh", "-c", `ip link set lo up; exec "$@"`, "sh"}, run.Args...)...))
	var log bytes.Buffer
	gateway.Stdout, gateway.Stderr = &log, &log
	if err := gateway.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- gateway.Wait()
		close(ended)
	}()
	defer func() {
		cancel()
		<-ended
	}()

	network := fmt.Sprintf("/proc/%d/ns/net", gateway.Process.Pid)
	inside := func(argv ...string) (string, error) {
		cmd := image.Command(ctx, image.User, nil, argv...)
		out, err := ownGroup(exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + network}, cmd.Args...)...)).CombinedOutput()
		return string(out), err
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			t.Fatalf("the gateway ended: %v\n%s", err, &log)
		case <-ctx.Done():
			out, err := inside(image.Healthcheck...)
			t.Fatalf("the health check goes on to fail: %v %s", err, out)
		case <-tick.C:
		}
		if ownNetwork(network) {
			if _, err := inside(image.Healthcheck...); err == nil {
				break
			}
		}
	}
	// a picture takes the capture, an encoder and a decoder: the packages are enough
	answer, err := inside("bash", "-c", `token=$(gateway token -config /etc/gateway/gateway.yaml -stream test 2>/dev/null) || exit
exec 3<>/dev/tcp/127.0.0.1/8080
printf 'GET /api/streams/test/snapshot.jpg HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n' "$token" >&3; cat <&3`)
	head, body, _ := strings.Cut(answer, "\r\n\r\n")
	if err != nil || !strings.Contains(head, " 200 ") {
		t.Fatalf("snapshot of the test stream: %v\n%s\n%s", err, answer, &log)
	}
	picture, err := jpeg.Decode(strings.NewReader(body))
	if err != nil {
		t.Fatalf("snapshot of the test stream: %v", err)
	}
	t.Logf("snapshot of the test stream: %v", picture.Bounds().Size())

	// what `docker stop` sends
	if err := syscall.Kill(-gateway.Process.Pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
		t.Logf("SIGTERM: %v\n%s", gateway.ProcessState, tail(log.String(), 3))
	case <-ctx.Done():
		t.Fatalf("SIGTERM doesn't end the gateway\n%s", &log)
	}
}

// ownNetwork tells whether a network isn't this process's.
func ownNetwork(path string) bool {
	theirs, err := os.Readlink(path)
	ours, err2 := os.Readlink("/proc/self/ns/net")
	return err == nil && err2 == nil && theirs != ours
}

func tail(s string, lines int) string {
	all := strings.Split(s, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
