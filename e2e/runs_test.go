package e2e

// Runs of the program itself, as a user or a build system starts it: several at
// once, stopped in the middle, on a tree that must stay as it is.

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/internal/vm"
	"github.com/klpc/klpc/livetest"
)

// buildProgram builds klpc and returns its path.
func buildProgram(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "klpc")
	if out, err := exec.Command("go", "build", "-o", path, "../cmd/klpc").CombinedOutput(); err != nil {
		t.Fatalf("build klpc: %v\n%s", err, out)
	}
	return path
}

// place is where one run works and writes; no other run knows it.
type place struct{ tmp, out string }

func newPlace(t *testing.T) place {
	t.Helper()
	dir := t.TempDir()
	p := place{filepath.Join(dir, "tmp"), filepath.Join(dir, "out")}
	for _, d := range []string{p.tmp, p.out} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// empty wants nothing left of a run.
func (p place) empty(t *testing.T) {
	t.Helper()
	for _, d := range []string{p.tmp, p.out} {
		if left, err := os.ReadDir(d); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v %v", d, left, err)
		}
	}
	if left := processesOf(p.tmp); len(left) > 0 {
		t.Errorf("processes are left: %q", left)
	}
}

// processesOf returns the command lines of the processes whose TMPDIR is dir.
func processesOf(dir string) []string {
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	for _, file := range environs {
		env, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(env, []byte("TMPDIR="+dir+"\x00")) {
			continue // gone, or not ours
		}
		if cmdline, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline")); err == nil && len(cmdline) > 0 {
			found = append(found, string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))
		}
	}
	return found
}

// command is a run of klpc build in a place.
func (p place) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, append([]string{"build", "-o", filepath.Join(p.out, "livepatch-run.ko")}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+p.tmp)
	return cmd
}

// module is what a run has written: one file, whose content is returned.
func (p place) module(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(p.out, "livepatch-run.ko"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(p.out, "livepatch-run.ko")); err != nil {
		t.Fatal(err)
	}
	p.empty(t)
	return data
}

// newestKernel is the one that the tests of the program use.
func newestKernel(t *testing.T) kernel {
	t.Helper()
	all := releases(t)
	for _, s := range slices.Backward(series) {
		if all[s] != "" {
			return openKernel(t, s)
		}
	}
	t.Skipf("apt offers no cloud kernel of %v, and KLPC_E2E_KERNELS names none", series)
	return kernel{}
}

// TestSameBytes: two runs at once, in different folders and with different
// numbers of jobs, do not disturb each other and give the same module.
func TestSameBytes(t *testing.T) {
	needBoot(t)
	t.Parallel()
	k, program := newestKernel(t), buildProgram(t)
	args := []string{"--kernel", "debian:" + k.Release, "--name", "same", k.patch(t, "three-files"), k.patch(t, "new-things")}
	places := []place{newPlace(t), newPlace(t)}
	var runs []*exec.Cmd
	var output [2]bytes.Buffer
	for i, p := range places {
		cmd := p.command(t.Context(), program, append([]string{fmt.Sprintf("-j%d", 1+3*i)}, args...)...)
		cmd.Stdout, cmd.Stderr = &output[i], &output[i]
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		runs = append(runs, cmd)
	}
	for i, cmd := range runs {
		if err := cmd.Wait(); err != nil {
			t.Fatalf("run %d: %v\n%s", i+1, err, output[i].String())
		}
	}
	if a, b := places[0].module(t), places[1].module(t); !bytes.Equal(a, b) {
		t.Errorf("two builds of the same input differ: %d and %d bytes", len(a), len(b))
	}
}

// TestStopped: a run that is told to stop ends soon, with exit code 1, and
// leaves neither processes nor files.
func TestStopped(t *testing.T) {
	needBoot(t)
	t.Parallel()
	k, program := newestKernel(t), buildProgram(t)
	tests := []struct {
		step   string // of the progress
		signal os.Signal
	}{
		{"apply the patch", os.Interrupt},
		{"compile", syscall.SIGTERM},
		{"link the module", syscall.SIGTERM},
		{"link the module", os.Interrupt},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s/%v", tt.step, tt.signal), func(t *testing.T) {
			p := newPlace(t)
			cmd := p.command(t.Context(), program, "--kernel", "debian:"+k.Release, k.patch(t, "three-files"))
			stderr, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var said strings.Builder
			lines := bufio.NewScanner(stderr)
			for lines.Scan() {
				said.WriteString(lines.Text() + "\n")
				if strings.Contains(lines.Text(), tt.step) {
					break
				}
			}
			time.Sleep(200 * time.Millisecond) // let the step begin in earnest
			start := time.Now()
			if err := cmd.Process.Signal(tt.signal); err != nil {
				t.Fatalf("%v; so far:\n%s", err, said.String())
			}
			for lines.Scan() {
				said.WriteString(lines.Text() + "\n")
			}
			var exit *exec.ExitError
			if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("%v, want exit status 1\n%s", err, said.String())
			}
			if d := time.Since(start); d > 10*time.Second {
				t.Errorf("it took %v to stop", d)
			}
			if !strings.Contains(said.String(), "interrupted") {
				t.Errorf("it does not say why it ended:\n%s", said.String())
			}
			p.empty(t)
		})
	}
}

// builtTree is a kernel tree that was built beforehand.
func builtTree(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("KLPC_E2E_TREE")
	if dir == "" {
		t.Skip("KLPC_E2E_TREE is not set: no built kernel tree to work on")
	}
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// snapshot describes every file of a tree: a write to any of them shows, even
// if its content and time are put back.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("%s: no status", path)
		}
		files[path] = fmt.Sprint(info.Mode(), info.Size(), st.Ino, st.Mtim, st.Ctim)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestBuiltTree: a livepatch for a kernel tree that somebody has built. The
// tree and its sources stay as they are, a tree that is mounted read-only gives
// the same module, and the tree's own kernel runs it.
func TestBuiltTree(t *testing.T) {
	needBoot(t)
	t.Parallel()
	tree, program := builtTree(t), buildProgram(t)
	source := tree
	if link, err := filepath.EvalSymlinks(filepath.Join(tree, "source")); err == nil {
		source = link
	}
	before := []map[string]string{snapshot(t, tree), snapshot(t, source)}
	patch := filepath.Join("..", "testdata", "patches", "three-files.patch")
	p := newPlace(t)
	if out, err := p.command(t.Context(), program, "--kernel", tree, patch).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data := p.module(t)
	for i, dir := range []string{tree, source} {
		if d := cmp.Diff(before[i], snapshot(t, dir)); d != "" {
			t.Errorf("files of %s have changed:\n%s", dir, d)
		}
	}
	t.Run("read-only", func(t *testing.T) { readOnlyTree(t, program, tree, source, patch, data) })
	t.Run("booted", func(t *testing.T) { bootTree(t, tree, data) })
}

// readOnlyTree builds in a mount namespace where the tree and its sources
// cannot be written.
func readOnlyTree(t *testing.T, program, tree, source, patch string, want []byte) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount the tree read-only")
	}
	p := newPlace(t)
	klpc := p.command(t.Context(), program, "--kernel", tree, patch)
	script := `for d in "$1" "$2"; do
	mount --bind "$d" "$d" && mount -o remount,bind,ro "$d" && ! touch "$d/klpc" 2>/dev/null || exit 99
done
shift 2
exec "$@"`
	cmd := exec.CommandContext(t.Context(), "unshare", append([]string{"-m", "sh", "-c", script, "sh", tree, source}, klpc.Args...)...)
	cmd.Env = klpc.Env
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && (exit.ExitCode() == 99 || bytes.HasPrefix(out, []byte("unshare:"))) {
		t.Skipf("the tree cannot be mounted read-only here: %s", out)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := p.module(t); sha256.Sum256(got) != sha256.Sum256(want) {
		t.Errorf("the module is another one: %d and %d bytes", len(got), len(want))
	}
}

func bootTree(t *testing.T, tree string, data []byte) {
	lp := filepath.Join(t.TempDir(), "livepatch-run.ko")
	if err := os.WriteFile(lp, data, 0o644); err != nil {
		t.Fatal(err)
	}
	find, err := livetest.FindModuleIn(tree)
	if err != nil {
		t.Fatal(err)
	}
	guest := livetest.Guest{Kernel: livetest.Kernel{BzImage: filepath.Join(tree, "arch/x86/boot/bzImage"), FindModule: find}, Accel: vm.TCG}
	var targets []string // a small kernel has no network
	if _, ok := find("dummy"); ok {
		targets = []string{"dummy"}
	}
	report, err := livetest.Run(t.Context(), livetest.Options{Guest: guest, Livepatch: lp, Targets: targets,
		Checks: []string{"grep -q ^calls= /proc/loadavg && grep -q '^call [0-9]' /proc/devices"}})
	if err != nil {
		t.Fatal(err)
	}
	if !report.OK {
		t.Error(strings.Join(report.Problems, "\n"))
	}
}
