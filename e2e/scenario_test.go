package e2e

// A scenario is a few livepatches and the steps that show what they do. All
// scenarios of a kernel are built first and then run one after the other in one
// guest. A scenario that fails does not keep the next ones from running. The
// phase of a step is the part of the scenario that it belongs to; each part is
// judged as a test of its own, what belongs to none with the scenario.

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/internal/modname"
	"github.com/klpc/klpc/internal/vm"
	"github.com/klpc/klpc/livetest"
	"github.com/klpc/klpc/pipeline"
)

// livepatch is one livepatch to build.
type livepatch struct {
	name      string   // without "livepatch-"
	patches   []string // names of the patches; none: the livepatch's own name
	noReplace bool
}

// scenario is what is built and done for one test.
type scenario struct {
	name        string
	series      string      // the only series of kernels that it is for; empty: all
	livepatches []livepatch // none: one that is called like the scenario
	patched     []string    // what the reports must name: "vmlinux m_show,2"
	sections    []string    // what the modules must hold
	globals     []string    // functions of vmlinux that the modules must call, and not static ones of that name
	hasSymbols  []string    // symbols of the kernel without which the test shows less
	tool        string      // program in testdata to put into the guest as /bin/NAME
	steps       func(k kernel) []livetest.Step
}

// built is a scenario with its modules.
type built struct {
	scenario
	modules []string
	reports []*pipeline.Report
	notes   []string
	err     error
	from    int // index of the scenario's first step in the script
	steps   []livetest.Step
}

// module is the name that the kernel gives to a livepatch.
func module(livepatch string) string {
	return "livepatch_" + modname.Canonical(livepatch)
}

func testLivepatches(t *testing.T, k kernel) {
	pick := only(t)
	var all []*built
	for _, s := range scenarios() {
		if len(s.livepatches) == 0 {
			s.livepatches = []livepatch{{name: s.name}}
		}
		if pick.MatchString(s.name) && (s.series == "" || s.series == k.series) {
			all = append(all, &built{scenario: s})
		}
	}
	start := time.Now()
	buildAll(t, k, all)
	t.Logf("%d scenarios are built after %.0f s", len(all), time.Since(start).Seconds())
	var console bytes.Buffer
	report := bootAll(t, k, all, &console)
	for _, b := range all {
		t.Run(b.name, func(t *testing.T) { b.judge(t, k, report) })
	}
	if report != nil && len(report.Console) > 0 {
		lines := strings.Split(console.String(), "\n")
		t.Errorf("the guest did not come to its end; the console's last lines:\n%s", strings.Join(lines[max(0, len(lines)-100):], "\n"))
	}
}

// buildAll builds the livepatches of all scenarios, two at once.
func buildAll(t *testing.T, k kernel, all []*built) {
	dir := t.TempDir()
	var g errgroup.Group
	g.SetLimit(2)
	for _, b := range all {
		var patches [][]string
		for _, l := range b.livepatches {
			patches = append(patches, patchFiles(t, k, l))
		}
		g.Go(func() error {
			for i, l := range b.livepatches {
				b.build(t, k, l, patches[i], dir)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

func patchFiles(t *testing.T, k kernel, l livepatch) []string {
	t.Helper()
	if len(l.patches) == 0 {
		return []string{k.patch(t, l.name)}
	}
	var files []string
	for _, p := range l.patches {
		files = append(files, k.patch(t, p))
	}
	return files
}

// build builds one livepatch and keeps what there is to say about it.
func (b *built) build(t *testing.T, k kernel, l livepatch, patches []string, dir string) {
	if b.err != nil {
		return
	}
	out := filepath.Join(dir, "livepatch-"+l.name+".ko")
	r, err := pipeline.Build(t.Context(), k.Kernel, pipeline.BuildOptions{
		Patches: patches, Output: out, Name: l.name, NoReplace: l.noReplace, Cache: k.cache,
		Events: pipeline.Events{Note: func(text string) { b.notes = append(b.notes, l.name+": "+text) }},
	})
	if err != nil {
		b.err = fmt.Errorf("build %s: %w%s", l.name, err, problems(r))
		return
	}
	b.modules = append(b.modules, out)
	b.reports = append(b.reports, r)
}

// problems are a report's problems as text.
func problems(r *pipeline.Report) string {
	if r == nil {
		return ""
	}
	var text string
	for _, p := range r.Problems {
		text += fmt.Sprintf("\n\t%s: %s: %s (%s)", p.Kind, p.Where, p.Detail, p.Hint)
	}
	return text
}

// bootAll runs the steps of all scenarios that could be built, in one guest.
func bootAll(t *testing.T, k kernel, all []*built, console io.Writer) *livetest.Report {
	guest := livetest.Guest{
		Kernel:  livetest.Kernel{BzImage: k.BzImage, FindModule: k.findModule},
		Files:   map[string]string{},
		Accel:   vm.TCG,
		Timeout: 10 * time.Minute,
		Console: console,
	}
	var script []livetest.Step
	for _, b := range all {
		if b.err != nil {
			continue
		}
		if b.tool != "" {
			path, err := compileTool(t, b.tool)
			if err != nil {
				b.err = err
				continue
			}
			guest.Files["/bin/"+b.tool] = path
		}
		guest.Modules = append(guest.Modules, b.modules...)
		b.from, b.steps = len(script), b.scenario.steps(k)
		for _, s := range b.steps {
			// The script must go on for the sake of the other scenarios.
			s.Expect = livetest.Any
			script = append(script, s)
		}
	}
	if len(script) == 0 {
		return nil
	}
	report, err := livetest.Script(t.Context(), guest, script)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d steps in %.0f s on %s", len(script), report.Seconds, report.Accel)
	return report
}

func (k kernel) findModule(name string) (string, bool) {
	path, err := k.FindModule(name)
	return path, err == nil
}

// compileTool compiles a program for the guest, statically.
func compileTool(t *testing.T, name string) (string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	cmd := exec.Command("go", "build", "-o", path, "./testdata/"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s for the guest: %w\n%s", name, err, out)
	}
	return path, nil
}

// judge says what became of one scenario.
func (b *built) judge(t *testing.T, k kernel, report *livetest.Report) {
	if b.err != nil {
		t.Fatal(b.err)
	}
	for _, name := range b.hasSymbols {
		if !k.hasSymbol(name) {
			t.Logf("this kernel has no %s: its compiler has not split the function", name)
		}
	}
	b.judgeBuild(t, k)
	b.judgePart(t, "", report)
	var parts []string
	for _, s := range b.steps {
		if s.Phase != "" && !slices.Contains(parts, s.Phase) {
			parts = append(parts, s.Phase)
		}
	}
	for _, p := range parts {
		t.Run(p, func(t *testing.T) { b.judgePart(t, p, report) })
	}
}

// judgePart judges the steps of one part and wants the kernel log clean while
// they ran.
func (b *built) judgePart(t *testing.T, part string, report *livetest.Report) {
	for i, want := range b.steps {
		if want.Phase != part {
			continue
		}
		got := report.Steps[b.from+i]
		switch {
		case got.Exit < 0:
			t.Fatalf("%s: did not run to its end", want.Name())
		case want.Expect == livetest.Pass && got.Exit != 0, want.Expect == livetest.Fail && got.Exit == 0:
			t.Errorf("%s: exit status %d, must %s\n%s", want.Name(), got.Exit, want.Expect, got.Output)
		case want.Kind == livetest.KindShow:
			t.Logf("%s\n%s", want.Name(), got.Output)
		}
	}
	for _, l := range report.Log {
		if i := l.Step - b.from; i >= 0 && i < len(b.steps) && b.steps[i].Phase == part {
			t.Errorf("kernel log in step %q: %s", b.steps[i].Name(), l.Text)
		}
	}
}

// placeholder is what the compiler puts where the kernel writes a pointer as it
// boots, 0x0123456789abcdef (arch/x86/include/asm/runtime-const.h, since 6.11).
var placeholder = []byte{0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01}

// judgeBuild looks at the reports and at the modules.
func (b *built) judgeBuild(t *testing.T, k kernel) {
	for _, n := range b.notes {
		if strings.Contains(n, "arning:") {
			t.Errorf("the build warns: %s", n)
		}
	}
	var patched, sections []string
	for _, name := range b.globals {
		symbol := fmt.Sprintf(".klp.sym.vmlinux.%s,%d\x00", name, k.globalPosition(t, name))
		if !slices.ContainsFunc(b.modules, func(m string) bool { return contains(t, m, symbol) }) {
			t.Errorf("no module refers to %q", symbol)
		}
	}
	for _, m := range b.modules {
		if data, err := os.ReadFile(m); err != nil || bytes.Contains(data, placeholder) {
			t.Errorf("%s holds the placeholder of a runtime constant %v", m, err)
		}
	}
	for i, r := range b.reports {
		for _, o := range r.Objects {
			for _, f := range o.Functions {
				patched = append(patched, described(o.Name, f))
			}
		}
		sections = append(sections, sectionNames(t, b.modules[i])...)
	}
	for _, want := range b.patched {
		if !slices.Contains(patched, want) {
			t.Errorf("the report does not name %q, but %q", want, patched)
		}
	}
	for _, want := range b.sections {
		if !slices.Contains(sections, want) {
			t.Errorf("the module has no section %s", want)
		}
	}
}

// globalPosition is the sympos of a global function that has the name of a
// static one: its place among them in address order, from 1.
func (k kernel) globalPosition(t *testing.T, name string) int {
	t.Helper()
	same := k.symbols.Named(name)
	for i, at := range same {
		if k.symbols.At(at).Kind == 'T' && len(same) > 1 {
			return i + 1
		}
	}
	t.Fatalf("%s is not the name of a global and of a static function", name)
	return 0
}

func contains(t *testing.T, file, text string) bool {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(data, []byte(text))
}

// described is how the tests name a function of a report.
func described(object string, f pipeline.ReportFunction) string {
	name := object + " " + f.Name
	if f.Sympos > 0 {
		name += fmt.Sprintf(",%d", f.Sympos)
	}
	if f.Change != "changed" {
		name += " " + string(f.Change)
	}
	return name
}

// sectionNames are the names of the sections of a module that hold something.
func sectionNames(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	o, err := elfobj.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range o.Sections {
		if s.Size > 0 {
			names = append(names, s.Name)
		}
	}
	return names
}
