package e2e

// klpc on the running system, in a guest of each kernel: what a person types,
// what it must print, how it must exit. The steps run one after the other; each
// leaves the guest as it was found unless its name says otherwise.

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/klpc/klpc/internal/vm"
	"github.com/klpc/klpc/livetest"
)

var record = flag.Bool("record", false, "write the trees of the guests into livepatch/testdata")

// command is a shell script in the guest, and what must come of it.
type command struct {
	name   string
	script string
	exit   int
	want   []string // regular expressions that its output must match
	never  []string // and that it must not match
	may    string   // lines of the kernel log that are part of it
}

// runningLivepatches are what the commands load.
func runningLivepatches() []livepatch {
	return []livepatch{
		{name: "one", patches: []string{"replace-1"}, noReplace: true},  // cmdline_proc_show, loadavg_proc_show
		{name: "two", patches: []string{"replace-2"}, noReplace: true},  // cmdline_proc_show
		{name: "all", patches: []string{"replace-1"}},                   // as one, in place of all others
		{name: "less", patches: []string{"replace-2"}},                  // as two, in place of all others
		{name: "late", patches: []string{"module"}, noReplace: true},    // dummy
		{name: "sleep", patches: []string{"sleeping"}, noReplace: true}, // pipe_read
		{name: "stop", patches: []string{"stopped"}, noReplace: true},   // get_signal
	}
}

// TestRunning runs klpc on the kernels that it loads livepatches into.
func TestRunning(t *testing.T) {
	needBoot(t)
	for _, s := range series {
		t.Run(s, func(t *testing.T) {
			t.Parallel()
			testRunning(t, openKernel(t, s))
		})
	}
}

func testRunning(t *testing.T, k kernel) {
	b := &built{scenario: scenario{name: "running", livepatches: runningLivepatches()}}
	buildAll(t, k, []*built{b})
	if b.err != nil {
		t.Fatal(b.err)
	}
	program := filepath.Join(t.TempDir(), "klpc")
	build := exec.Command("go", "build", "-o", program, "../cmd/klpc")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build klpc for the guest: %v\n%s", err, out)
	}
	files := badFiles(t, b.modules[0])
	files["/bin/klpc"] = program
	fentry, err := compileTool(t, "fentry")
	if err != nil {
		t.Fatal(err)
	}
	files["/bin/fentry"] = fentry
	pick := only(t)
	var script []livetest.Step
	var commands []command
	for _, c := range runningCommands(k) {
		if pick.MatchString(c.name) || strings.HasPrefix(c.name, "prepare") {
			commands = append(commands, c)
			script = append(script, livetest.Show(c.script))
		}
	}
	guest := livetest.Guest{
		Kernel: livetest.Kernel{BzImage: k.BzImage, FindModule: k.findModule}, Modules: append(b.modules, dummy(t, k)),
		Files: files, Accel: vm.TCG, Timeout: 20 * time.Minute, StepLimit: 4 * time.Minute,
	}
	report, err := livetest.Script(t.Context(), guest, script)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d commands in %.0f s", len(script), report.Seconds)
	for i, c := range commands {
		t.Run(c.name, func(t *testing.T) { c.judge(t, report, i) })
	}
	if len(report.Console) > 0 {
		t.Errorf("the guest did not come to its end:\n%s", strings.Join(report.Console, "\n"))
	}
	if *record {
		recordTrees(t, k, report, commands)
	}
}

// dummy is the file of the kernel's module dummy.
func dummy(t *testing.T, k kernel) string {
	t.Helper()
	path, err := k.FindModule("dummy")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// badFiles are files that must not be loaded, by their path in the guest.
func badFiles(t *testing.T, good string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	release := regexp.MustCompile(`vermagic=(\S+) `).FindSubmatch(data)
	if release == nil {
		t.Fatalf("%s has no vermagic", good)
	}
	changed := func(old, new string) []byte {
		if len(old) != len(new) || !bytes.Contains(data, []byte(old)) {
			t.Fatalf("%q cannot become %q in %s", old, new, good)
		}
		return bytes.ReplaceAll(data, []byte(old), []byte(new))
	}
	foreign := bytes.Clone(data)
	foreign[18] = 0xb7 // e_machine: EM_AARCH64
	dir := t.TempDir()
	files := map[string]string{}
	for name, data := range map[string][]byte{
		"garbage":   []byte("this is no module\n"),
		"empty":     nil,
		"truncated": data[:len(data)/2],
		"foreign":   foreign,
		"release":   changed(string(release[1]), strings.Repeat("9", len(release[1]))),
		"vermagic":  changed("mod_unload", "mod_unl0ad"),
		"symbol":    changed("cmdline_proc_show", "cmdline_proc_shew"),
	} {
		path := filepath.Join(dir, name+".ko")
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		files["/bad/"+name+".ko"] = path
	}
	return files
}

// judge compares a command's output with what must come of it.
func (c command) judge(t *testing.T, report *livetest.Report, i int) {
	got := report.Steps[i]
	if got.Exit != c.exit {
		t.Errorf("exit status %d, want %d", got.Exit, c.exit)
	}
	for _, w := range c.want {
		if !regexp.MustCompile("(?m)" + w).MatchString(got.Output) {
			t.Errorf("the output does not match %q", w)
		}
	}
	for _, n := range c.never {
		if regexp.MustCompile("(?m)" + n).MatchString(got.Output) {
			t.Errorf("the output matches %q", n)
		}
	}
	for _, l := range report.Log {
		if l.Step == i && (c.may == "" || !regexp.MustCompile(c.may).MatchString(l.Text)) {
			t.Errorf("kernel log: %s", l.Text)
		}
	}
	if t.Failed() || testing.Verbose() {
		t.Logf("%s\n%s(%.1f s)", c.script, got.Output, got.Seconds)
	}
}

// recordTrees keeps what the commands called record have printed, as trees for
// the tests of the package livepatch.
func recordTrees(t *testing.T, k kernel, report *livetest.Report, commands []command) {
	all := txtar.Archive{Comment: fmt.Appendf(nil, "Recorded on %s. A name that ends in a slash is a folder.\n", k.Release)}
	for i, c := range commands {
		name, ok := strings.CutPrefix(c.name, "record ")
		if !ok {
			continue
		}
		files := map[string]string{}
		for line := range strings.Lines(report.Steps[i].Output) {
			path, text, _ := strings.Cut(line, ":")
			if strings.HasSuffix(path, "/") {
				text = ""
			}
			files[name+path] += text
		}
		for _, path := range slices.Sorted(maps.Keys(files)) {
			all.Files = append(all.Files, txtar.File{Name: path, Data: []byte(files[path])})
		}
	}
	path := filepath.Join("..", "livepatch", "testdata", "linux-"+k.series+".txtar")
	if err := os.WriteFile(path, txtar.Format(&all), 0o644); err != nil {
		t.Fatal(err)
	}
}
