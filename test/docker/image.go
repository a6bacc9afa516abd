package docker

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Builder carries out Dockerfiles. It needs root.
type Builder struct {
	Dir     string            // an empty folder for the stages
	Base    string            // the root of a clean Debian; it is copied, not changed
	Context string            // the build context
	GoRoot  string            // what stands in for the Go of golang:…
	Env     []string          // environment of every RUN, for the ways out of this machine
	Args    map[string]string // build arguments
	Output  io.Writer         // what the steps print
}

// Image is what a Dockerfile's last stage leaves.
type Image struct {
	Root        string
	Workdir     string
	User        string
	Env         []string
	Entrypoint  []string
	Cmd         []string
	Healthcheck []string

	args []string // build arguments of the stage
}

// Build carries out all instructions and returns the last stage.
func (b *Builder) Build(ctx context.Context, instructions []Instruction) (*Image, error) {
	stages := make(map[string]*Image)
	var image *Image
	for _, in := range instructions {
		if image == nil && in.Name != "FROM" {
			return nil, fmt.Errorf("line %d: %s before FROM", in.Line, in.Name)
		}
		fmt.Fprintf(b.Output, "== line %d: %s %s\n", in.Line, in.Name, in.Args)
		var err error
		switch in.Name {
		case "FROM":
			base, name, _ := strings.Cut(in.Args, " AS ")
			image, err = b.from(ctx, base, len(stages))
			if name == "" {
				name = fmt.Sprint(len(stages))
			}
			stages[name] = image
		case "COPY":
			err = b.copy(ctx, image, stages, strings.Fields(in.Args))
		default:
			err = b.step(ctx, image, in)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %s: %w", in.Line, in.Name, err)
		}
	}
	return image, nil
}

func (b *Builder) step(ctx context.Context, image *Image, in Instruction) (err error) {
	switch in.Name {
	case "RUN":
		cmd := image.Command(ctx, "0:0", append(slices.Concat(b.Env, image.args), "HOME=/root", "DEBIAN_FRONTEND=noninteractive"), "/bin/sh", "-c", in.Args)
		cmd.Stdout, cmd.Stderr = b.Output, b.Output
		return cmd.Run()
	case "ARG":
		name, value, _ := strings.Cut(in.Args, "=")
		if given, ok := b.Args[name]; ok {
			value = given
		}
		image.args = append(image.args, name+"="+value)
	case "WORKDIR":
		image.Workdir = in.Args
		return os.MkdirAll(filepath.Join(image.Root, in.Args), 0o755)
	case "ENV":
		image.Env = append(image.Env, in.Args) // NAME=VALUE, one
	case "USER":
		image.User = in.Args
	case "ENTRYPOINT":
		image.Entrypoint, err = execForm(in.Args)
	case "CMD":
		image.Cmd, err = execForm(in.Args)
	case "HEALTHCHECK":
		_, command, _ := strings.Cut(in.Args, "CMD ")
		image.Healthcheck, err = execForm(command)
	case "EXPOSE", "STOPSIGNAL": // words for the engine
	default:
		return fmt.Errorf("not understood")
	}
	return err
}

func (b *Builder) from(ctx context.Context, base string, n int) (*Image, error) {
	image := &Image{Root: filepath.Join(b.Dir, fmt.Sprint(n)), Workdir: "/", User: "root"}
	image.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if err := b.tool(ctx, "cp", "-a", b.Base, image.Root); err != nil {
		return nil, err
	}
	name, tag, _ := strings.Cut(base, ":")
	switch {
	case name == "debian" && tag == "bookworm-slim":
		return image, nil
	case name == "golang" && strings.HasSuffix(tag, "-bookworm"):
		version, err := os.ReadFile(filepath.Join(b.GoRoot, "VERSION"))
		if err != nil {
			return nil, err
		}
		if want := "go" + strings.TrimSuffix(tag, "-bookworm"); !strings.HasPrefix(string(version), want) {
			return nil, fmt.Errorf("%s is wanted, this machine has %.10s", want, version)
		}
		image.Env = []string{"PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GOPATH=/go", "GOTOOLCHAIN=local"}
		return image, b.tool(ctx, "cp", "-a", b.GoRoot, filepath.Join(image.Root, "usr/local/go"))
	}
	return nil, fmt.Errorf("nothing here stands in for %s", base)
}

func (b *Builder) copy(ctx context.Context, image *Image, stages map[string]*Image, words []string) error {
	source := b.Context
	if name, ok := strings.CutPrefix(words[0], "--from="); ok {
		if stages[name] == nil {
			return fmt.Errorf("no stage %q", name)
		}
		source, words = stages[name].Root, words[1:]
	}
	to := words[len(words)-1]
	target := filepath.Join(image.Root, image.Workdir, to)
	if filepath.IsAbs(to) {
		target = filepath.Join(image.Root, to)
	}
	for _, from := range words[:len(words)-1] {
		from = filepath.Join(source, from)
		info, err := os.Stat(from)
		if err != nil {
			return err
		}
		if info.IsDir() { // the engine copies what is in it
			from += "/."
			if err := os.MkdirAll(target, 0o755); err != nil {
				return err
			}
		}
		folder := target
		if !strings.HasSuffix(to, "/") {
			folder = filepath.Dir(target)
		}
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
		if err := b.tool(ctx, "cp", "-a", "--no-preserve=ownership", from, target); err != nil {
			return err
		}
	}
	return nil
}

func (b *Builder) tool(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = b.Output, b.Output
	return cmd.Run()
}

// Command makes a command that runs in the image with a process tree and a
// /proc of its own. User is what chroot --userspec takes; with a name, the groups
// are those that the image gives it. The command has a process group of its own:
// a signal to the group reaches it through the tools that set it up.
func (i *Image) Command(ctx context.Context, user string, env []string, argv ...string) *exec.Cmd {
	args := []string{
		"--mount", "--pid", "--fork", "--mount-proc=" + filepath.Join(i.Root, "proc"),
		"chroot", "--userspec=" + user, i.Root, "env", "--ignore-environment", "--chdir=" + i.Workdir,
	}
	args = append(args, i.Env...)
	args = append(args, env...)
	return ownGroup(exec.CommandContext(ctx, "unshare", append(args, argv...)...))
}

// ownGroup lets the whole process group end with its context. (unshare's
// --kill-child wouldn't do: a change of user clears the signal that it asks for.)
func ownGroup(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}
