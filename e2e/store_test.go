package e2e

// The patch store over several boots of one machine: a disk keeps it, and klpc
// restore runs as klpc.service would.

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/klpc/klpc/internal/vm"
	"github.com/klpc/klpc/livetest"
	"github.com/klpc/klpc/pipeline"
)

// Checks of the livepatches in these tests.
const (
	cmdlinePatched = "grep -q livepatch=1 /proc/cmdline"
	versionPatched = "grep -q ^livepatch /proc/version"
)

func TestStore(t *testing.T) {
	needBoot(t)
	program := buildStatic(t)
	for _, s := range series {
		t.Run(s, func(t *testing.T) {
			t.Parallel()
			k := openKernel(t, s)
			m := &storeMachine{kernel: k, program: program, disk: newDisk(t)}
			m.modules = buildStored(t, k, "cmdline", "version", "panics")
			m.firstBoot(t)
			m.crashAtRestore(t)
			m.heldBack(t)
			m.afterPowerCut(t)
		})
	}
}

// buildStatic builds a klpc that runs in the guest.
func buildStatic(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "klpc")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "../cmd/klpc")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build klpc: %v\n%s", err, out)
	}
	return path
}

// newDisk makes an image with an empty file system.
func newDisk(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 16<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", path).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4 (package e2fsprogs): %v\n%s", err, out)
	}
	return path
}

// buildStored builds one livepatch of each patch; none replaces another.
func buildStored(t *testing.T, k kernel, names ...string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	modules := map[string]string{}
	var g errgroup.Group
	g.SetLimit(2)
	for _, name := range names {
		out, patch := filepath.Join(dir, "livepatch-"+name+".ko"), k.patch(t, name)
		modules[name] = out
		g.Go(func() error {
			r, err := pipeline.Build(t.Context(), k.Kernel, pipeline.BuildOptions{
				Patches: []string{patch}, Output: out, Name: name, NoReplace: true, Cache: k.cache,
			})
			if err != nil {
				return fmt.Errorf("build %s: %w%s", name, err, problems(r))
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return modules
}

// storeMachine is a machine that is booted several times.
type storeMachine struct {
	kernel
	program string
	disk    string
	modules map[string]string
}

// boot boots the machine, mounts its disk on /var/lib/klpc, and runs steps.
func (m *storeMachine) boot(t *testing.T, parameters string, script ...livetest.Step) *livetest.Report {
	t.Helper()
	var all []livetest.Step
	for _, driver := range []string{"virtio_pci", "virtio_blk"} {
		if _, ok := m.findModule(driver); ok {
			all = append(all, livetest.Insmod(driver))
		}
	}
	all = append(all, livetest.Exec("mkdir -p /var/lib/klpc && mount -t ext4 /dev/vda /var/lib/klpc"))
	prefix := len(all)
	guest := livetest.Guest{
		Kernel: livetest.Kernel{BzImage: m.BzImage, FindModule: m.findModule},
		Files:  map[string]string{"/bin/klpc": m.program}, Disks: []string{m.disk}, Append: parameters,
		Accel: vm.TCG, Timeout: 15 * time.Minute, StepLimit: 5 * time.Minute,
	}
	for name, path := range m.modules {
		guest.Files["/lp/livepatch-"+name+".ko"] = path
	}
	report, err := livetest.Script(t.Context(), guest, append(all, script...))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range report.Steps[:prefix] {
		if !s.OK {
			t.Fatalf("%s: %s\n%s", s.Name(), s.Problem, s.Output)
		}
	}
	report.Steps = report.Steps[prefix:]
	for _, s := range report.Steps {
		t.Logf("%s (exit status %d, %.1f s)\n%s", s.Name(), s.Exit, s.Seconds, s.Output)
	}
	return report
}

// wellDone wants all steps to hold and the kernel log to be clean.
func wellDone(t *testing.T, r *livetest.Report) {
	t.Helper()
	if !r.OK {
		t.Fatalf("problems:\n%s", strings.Join(r.Problems, "\n"))
	}
}

// died wants the machine to have died in the last step, after the others held.
func died(t *testing.T, r *livetest.Report) {
	t.Helper()
	last := len(r.Steps) - 1
	for _, s := range r.Steps[:last] {
		if !s.OK {
			t.Fatalf("%s: %s\n%s", s.Name(), s.Problem, s.Output)
		}
	}
	if r.Steps[last].Exit >= 0 {
		t.Fatalf("%s: exit status %d, and the machine was to die over it\n%s", r.Steps[last].Name(), r.Steps[last].Exit, r.Steps[last].Output)
	}
}

// check is a command that must succeed, all its lines.
func check(l ...string) livetest.Step {
	return livetest.CheckPasses("set -e\n" + lines(l...))
}

// fails wants a command to fail; "! command" would not end a script that has set -e.
func fails(command string) string {
	return "if " + command + "; then echo 'it does not fail'; exit 1; fi"
}

// says wants the output of a command to hold a text.
func says(command, text string) string {
	return fmt.Sprintf("%s >/tmp/said 2>&1 || { cat /tmp/said; exit 1; }\ncat /tmp/said\ngrep -qF -- %q /tmp/said", command, text)
}

func (m *storeMachine) firstBoot(t *testing.T) {
	r := m.boot(t, "",
		check(says("klpc restore", "nothing to restore")),
		check("klpc install --dry-run --accept /lp/livepatch-cmdline.ko", "[ ! -e /var/lib/klpc/$(uname -r) ]"),
		check("klpc install --accept /lp/livepatch-cmdline.ko"),
		check("klpc install /lp/livepatch-version.ko", // its patch names the CVE
			"for f in cmdline_proc_show version_proc_show cmdline.patch version.patch CVE-2026-0001; do grep -q $f /var/lib/klpc/$(uname -r)/manifest.json; done"),
		check("klpc install --accept /lp/livepatch-panics.ko"),
		check(says("klpc install --accept /lp/livepatch-panics.ko", "nothing to do")),
		check(says("klpc restore --dry-run", "livepatch_cmdline  to be restored"), fails(cmdlinePatched)),
		check("klpc load version", versionPatched),
		check("klpc mark clean"),
	)
	wellDone(t, r)
}

// crashAtRestore: the first livepatch is restored, the next one panics. The one
// that is not accepted was loaded before a clean shutdown: it is not held back.
func (m *storeMachine) crashAtRestore(t *testing.T) {
	r := m.boot(t, "",
		check(says("klpc restore --dry-run", "livepatch_version  not accepted")),
		livetest.Exec("klpc restore"),
	)
	died(t, r)
}

// heldBack: what panicked is not tried again, and status says why. Then the power
// goes while a livepatch is loaded that is not accepted.
func (m *storeMachine) heldBack(t *testing.T) {
	const why = "the machine restarted while it was being restored at boot"
	r := m.boot(t, "",
		check(says("klpc restore", why), cmdlinePatched, fails(versionPatched), "[ ! -e /sys/module/livepatch_panics ]"),
		check(says("klpc status", why)),
		check("klpc load version", versionPatched),
		livetest.Exec("echo 1 >/proc/sys/kernel/sysrq; echo b >/proc/sysrq-trigger; sleep 60"),
	)
	died(t, r)
}

func (m *storeMachine) afterPowerCut(t *testing.T) {
	const why = "it was loaded, and not accepted, when the machine restarted without a clean shutdown"
	r := m.boot(t, "klpc.restore=0",
		check(says("klpc restore", "klpc.restore=0 is on the kernel command line"), fails(cmdlinePatched)),
		// From here on it is a boot without the switch.
		check("echo 'no switch' >/tmp/cmdline", "mount --bind /tmp/cmdline /proc/cmdline", says("klpc restore --json", why),
			says("klpc restore", "livepatch_cmdline  already loaded"), "umount /proc/cmdline", cmdlinePatched, fails(versionPatched)),
		check(says("klpc status", why)),
		check("klpc accept version", "klpc uninstall panics", "mount --bind /tmp/cmdline /proc/cmdline",
			says("klpc restore", "livepatch_version  restored"), "umount /proc/cmdline", versionPatched),
		check(says("klpc status --prometheus", `klpc_cve_fixed{cve="CVE-2026-0001",patch="livepatch_version"} 1`)),
	)
	wellDone(t, r)
}
