package pipeline

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/google/renameio/v2"
	"golang.org/x/sync/errgroup"

	"github.com/klpc/klpc/codegen"
	"github.com/klpc/klpc/diff"
	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/kbuild"
	"github.com/klpc/klpc/kmodtmpl"
)

// BuildOptions say what to build.
type BuildOptions struct {
	Patches   []string // patches, mboxes, or folders with a series file
	Git       string   // REV..REV: commits of the source tree's repository, after Patches
	Output    string   // path of the module; empty: livepatch-NAME.ko in the current folder
	Name      string   // empty: from the first patch
	NoReplace bool
	Jobs      int // parallel compiles; 0: one per processor
	Fuzz      int
	Keep      bool     // leave the work folder
	Launcher  []string // put before every compile: ccache, distcc
	Cache     string
	CacheSize int64 // bytes of compile results to keep; 0: none
	Events    Events
}

// The outcomes of a build that are not a module.
var (
	// ErrNothing: no function of the running kernel changes.
	ErrNothing = errors.New("nothing to patch: the patch changes no function of this kernel")
	// ErrUnpatchable: Report.Problems say why.
	ErrUnpatchable = errors.New("this change cannot be livepatched")
)

// builder carries one build along.
type builder struct {
	o      BuildOptions
	kernel *Kernel
	work   string
	shadow *kbuild.Shadow
	files  []touched
	sel    *selection
	report *Report
	timing stopwatch
	cache  *compileCache
	// problems are those of whole files; the rest of the patch is looked at
	// all the same, so that all problems come out together.
	problems []elfdiff.Problem

	mu sync.Mutex // events
}

// moduleName is what the kernel allows; MODULE_NAME_LEN is 56 with the NUL.
var moduleName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,55}$`)

// Build makes a livepatch module from patches. The report is never nil if the
// error is ErrNothing or ErrUnpatchable. Nothing is written unless err is nil.
func Build(ctx context.Context, k *Kernel, o BuildOptions) (report *Report, err error) {
	if o.Jobs <= 0 {
		o.Jobs = runtime.NumCPU()
	}
	b := &builder{o: o, kernel: k, report: &Report{Kernel: k.Release}}
	b.cache = newCompileCache(k.Tree, o.Cache, o.CacheSize, o.Keep, func(text string) { b.event(func(e Events) { e.note(text) }) })
	if err := b.nameModule(); err != nil {
		return nil, err
	}
	if err := checkWritable(b.o.Output); err != nil {
		return nil, err
	}
	if b.work, err = os.MkdirTemp("", "klpc-"); err != nil {
		return nil, fmt.Errorf("make a work folder: %w; set TMPDIR", err)
	}
	if o.Keep {
		defer func() { b.event(func(e Events) { e.note("work folder kept: " + b.work) }) }()
	} else {
		defer func() { err = errors.Join(err, os.RemoveAll(b.work)) }()
	}
	if err := os.Mkdir(filepath.Join(b.work, "obj"), 0o755); err != nil {
		return nil, err
	}
	units, err := b.findUnits(ctx)
	if err != nil {
		return b.report, err
	}
	pairs, err := b.compile(ctx, units)
	if err != nil {
		return b.report, err
	}
	plan, err := b.plan(ctx, pairs)
	if err != nil {
		return b.report, err
	}
	data, err := b.link(ctx, plan)
	if err != nil {
		return nil, err
	}
	if err := renameio.WriteFile(b.o.Output, data, 0o644); err != nil {
		return nil, fmt.Errorf("write the module: %w", err)
	}
	b.report.Timings = b.timing.end()
	b.report.Module = b.o.Output
	b.report.Size = len(data)
	return b.report, nil
}

func (b *builder) event(f func(Events)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(b.o.Events)
}

func (b *builder) step(text string) {
	b.timing.begin(text)
	b.event(func(e Events) { e.step(text) })
}

// nameModule settles the module's name and file.
func (b *builder) nameModule() error {
	if len(b.o.Patches) == 0 && b.o.Git == "" {
		return errors.New("no patch given")
	}
	name := b.o.Name
	if name == "" {
		name = b.o.Git
		if len(b.o.Patches) > 0 {
			base := filepath.Base(filepath.Clean(b.o.Patches[0]))
			name = strings.TrimSuffix(strings.TrimSuffix(base, filepath.Ext(base)), ".")
		}
		name = regexp.MustCompile(`[^A-Za-z0-9_-]+`).ReplaceAllString(name, "-")
		name = name[:min(len(name), 55-len("livepatch-"))]
	}
	full := "livepatch-" + strings.TrimPrefix(name, "livepatch-")
	if !moduleName.MatchString(full) {
		return fmt.Errorf("%q is not a module name: at most 55 characters of A-Z a-z 0-9 _ - with the prefix \"livepatch-\"; give another with --name", full)
	}
	b.report.Name = full
	if b.o.Output == "" {
		b.o.Output = full + ".ko"
	}
	return nil
}

// checkWritable fails early where the module could not be written in the end.
func checkWritable(path string) error {
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		return fmt.Errorf("write the module: %s is no regular file; name another", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".klpc-*")
	if err != nil {
		return fmt.Errorf("write the module: %w", err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// findUnits applies the patches and finds the units that see a change.
func (b *builder) findUnits(ctx context.Context) ([]kbuild.Unit, error) {
	b.step("apply the patch")
	tree := b.kernel.Tree
	patches, err := readPatches(b.o.Patches)
	if err != nil {
		return nil, err
	}
	if b.o.Git != "" {
		commits, err := gitPatches(ctx, tree.Source, b.o.Git)
		if err != nil {
			return nil, err
		}
		patches = append(patches, commits...)
	}
	b.files, err = applyAll(tree.Source, patches, diff.Options{Fuzz: b.o.Fuzz}, b.o.Events)
	if err != nil {
		return nil, err
	}
	sel, err := selectUnits(ctx, tree, b.files, b.depsCache(), filepath.Join(b.work, "kbuild"))
	if err != nil {
		return nil, err
	}
	b.sel = sel
	b.report.NoEffect, b.report.Notes = sel.noEffect, sel.notes
	b.problems = sel.problems
	files := map[string]*[]byte{}
	for _, f := range b.files {
		if f.content == nil {
			files[f.path] = nil
		} else {
			files[f.path] = &f.pinned
		}
	}
	b.addHelpers(files)
	if b.shadow, err = kbuild.NewShadow(tree, filepath.Join(b.work, "src"), files); err != nil {
		return nil, err
	}
	more, err := b.decideCandidates(ctx, sel.candidates)
	if err != nil {
		return nil, err
	}
	units := append(sel.units, more...)
	if len(units) == 0 {
		return nil, b.nothing()
	}
	return units, nil
}

// depsCache is where the index of who reads which header is kept, one for each
// tree; empty if the cache cannot be written.
func (b *builder) depsCache() string {
	dir := filepath.Join(b.o.Cache, "deps")
	if b.o.Cache == "" || os.MkdirAll(dir, 0o755) != nil {
		return ""
	}
	sum := sha256.Sum256([]byte(b.kernel.Tree.Build))
	return filepath.Join(dir, hex.EncodeToString(sum[:8]))
}

// nothing is the outcome of a build that finds no changed function.
func (b *builder) nothing() error {
	if len(b.problems) == 0 {
		return ErrNothing
	}
	elfdiff.SortProblems(b.problems)
	b.report.Problems = elfdiff.JSONProblems(b.problems)
	return ErrUnpatchable
}

// addHelpers gives patches that include it the header of the callback macros
// where the kernel does not have it. Others are spared the cost: a shadow of
// include/linux takes a symbolic link for each of its 1,500 files.
func (b *builder) addHelpers(files map[string]*[]byte) {
	name := []byte(path.Base(kmodtmpl.HelpersPath))
	_, own := files[kmodtmpl.HelpersPath]
	if own || !slices.ContainsFunc(b.files, func(f touched) bool { return f.content != nil && bytes.Contains(*f.content, name) }) {
		return
	}
	if _, err := os.Stat(filepath.Join(b.kernel.Tree.Source, kmodtmpl.HelpersPath)); errors.Is(err, os.ErrNotExist) {
		text := kmodtmpl.Helpers()
		files[kmodtmpl.HelpersPath] = &text
	}
}

// each runs n pieces of work in parallel and reports each.
func (b *builder) each(ctx context.Context, n int, work func(context.Context, int) (string, error)) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(b.o.Jobs)
	done := 0
	for i := range n {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err // another one has failed
			}
			name, err := work(ctx, i)
			if err != nil {
				return err
			}
			b.event(func(e Events) {
				done++
				e.unit(done, n, name)
			})
			return nil
		})
	}
	return g.Wait()
}

func (b *builder) tempName(u kbuild.Unit, suffix string) string {
	return filepath.Join(b.work, "obj", strings.ReplaceAll(strings.TrimSuffix(u.Object, ".o"), "/", "~")+"."+suffix)
}

// sectionFlags put every function and variable into a section of its own.
var sectionFlags = []string{"-ffunction-sections", "-fdata-sections"}

// pair is a unit compiled twice.
type pair struct {
	unit          kbuild.Unit
	orig, patched *elfobj.Object
	diff          *elfdiff.Result
	crcs          []elfdiff.Problem
	mismatch      []string
	notes         []string
}

// compile compiles each unit as it is and as patched, and compares.
func (b *builder) compile(ctx context.Context, units []kbuild.Unit) ([]pair, error) {
	b.step(fmt.Sprintf("compile %s, as it is and as patched", count(len(units), "unit")))
	pairs := make([]pair, len(units))
	err := b.each(ctx, 2*len(units), func(ctx context.Context, i int) (string, error) {
		u := units[i/2]
		job := kbuild.CompileJob{Unit: u, Out: b.tempName(u, "orig.o"), Extra: sectionFlags, Launcher: b.o.Launcher}
		to := &pairs[i/2].orig
		switch {
		case i%2 == 1:
			job.Unit, job.Out, job.Shadow = b.sel.after(u), b.tempName(u, "patched.o"), b.shadow
			to = &pairs[i/2].patched
		case b.sel.fresh[u.Object]:
			return u.Source, nil // compared with an empty object
		}
		data, err := b.cache.object(ctx, job)
		if err != nil {
			if job.Shadow == nil {
				return u.Source, fmt.Errorf("the original does not compile: %w", err)
			}
			return u.Source, b.withoutPins(ctx, job, err, to)
		}
		*to, err = parseObject(job.Out, data)
		return u.Source, err
	})
	if err != nil {
		return nil, err
	}
	b.step("compare")
	err = b.each(ctx, len(units), func(ctx context.Context, i int) (string, error) {
		p := &pairs[i]
		p.unit = units[i]
		if p.orig == nil {
			p.orig = emptyObject(p.patched)
			p.notes = initcallNotes(p)
		}
		var err error
		if p.diff, err = elfdiff.Compare(p.orig, p.patched); err != nil {
			return p.unit.Source, fmt.Errorf("%s: %w", p.unit.Source, err)
		}
		if p.diff.Verdict != elfdiff.Unchanged && len(p.diff.Orig.Exports) > 0 {
			err = b.compareCRCs(ctx, p)
		}
		return p.unit.Source, err
	})
	return pairs, err
}

// withoutPins compiles the patched text as the author wrote it, after it
// failed with pinned lines: then the message is about the author's lines, and
// if pinning was the cause, the compile succeeds.
func (b *builder) withoutPins(ctx context.Context, job kbuild.CompileJob, first error, to **elfobj.Object) error {
	var ce *kbuild.CompileError
	if !errors.As(first, &ce) {
		return first
	}
	files := map[string]*[]byte{}
	for _, f := range b.files {
		files[f.path] = f.content
	}
	b.addHelpers(files)
	dir, err := os.MkdirTemp(b.work, "unpinned-")
	if err != nil {
		return err
	}
	if job.Shadow, err = kbuild.NewShadow(b.kernel.Tree, dir, files); err != nil {
		return err
	}
	data, err := b.cache.object(ctx, job)
	if err != nil {
		return err
	}
	*to, err = parseObject(job.Out, data)
	return err
}

func readObject(path string) (*elfobj.Object, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseObject(path, data)
}

func parseObject(path string, data []byte) (*elfobj.Object, error) {
	o, err := elfobj.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return o, nil
}

// plan decides what goes into the module.
func (b *builder) plan(ctx context.Context, pairs []pair) (*codegen.Plan, error) {
	b.step("read the kernel's symbols and plan the module")
	var units []codegen.Unit
	var modules []string
	for i := range pairs {
		p := &pairs[i]
		b.report.Notes = append(b.report.Notes, p.notes...)
		if p.diff.Verdict != elfdiff.Unchanged {
			for _, object := range objectNames(p.unit) {
				units = append(units, codegen.Unit{Source: b.sel.after(p.unit).Source, Object: object, Diff: p.diff})
				if object != codegen.VMLinux {
					modules = append(modules, object)
				}
			}
		}
	}
	if len(units) == 0 {
		return nil, b.nothing()
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	slices.Sort(modules)
	t, err := b.kernel.Target(slices.Compact(modules))
	if err != nil {
		return nil, err
	}
	plan, err := codegen.Decide(units, t)
	if err != nil {
		return nil, err
	}
	for i := range pairs {
		plan.Problems = append(plan.Problems, pairs[i].crcs...)
		plan.Mismatches = append(plan.Mismatches, pairs[i].mismatch...)
	}
	plan.Problems = append(plan.Problems, b.problems...)
	elfdiff.SortProblems(plan.Problems)
	b.report.fill(plan, b.files)
	switch {
	case len(plan.Problems) > 0:
		return nil, ErrUnpatchable
	case plan.Empty():
		return nil, ErrNothing
	case len(plan.Mismatches) > 0:
		return nil, fmt.Errorf("the running kernel is not the one that these sources, this configuration and this compiler build:\n  %s",
			strings.Join(plan.Mismatches, "\n  "))
	}
	return plan, nil
}

// link builds the module through the kernel's own Kbuild and finishes it.
func (b *builder) link(ctx context.Context, plan *codegen.Plan) ([]byte, error) {
	b.step("link the module")
	dir := filepath.Join(b.work, "module")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	var prebuilt []string
	for i, o := range plan.Emit() {
		if o == nil {
			continue
		}
		name := fmt.Sprintf("klpc_unit%d", i)
		data, err := o.Encode()
		if err != nil {
			return nil, fmt.Errorf("internal error: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".o_shipped"), data, 0o644); err != nil {
			return nil, err
		}
		prebuilt = append(prebuilt, name)
	}
	files, err := kmodtmpl.Render(plan.Template(b.report.Name, !b.o.NoReplace, prebuilt))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Text, 0o644); err != nil {
			return nil, err
		}
	}
	job := kbuild.ModuleJob{Dir: dir, Name: b.report.Name}
	for _, p := range prebuilt {
		job.Prebuilt = append(job.Prebuilt, p+".o")
	}
	res, err := b.kernel.Tree.LinkModule(ctx, job)
	if err != nil {
		return nil, err
	}
	for _, w := range warnings(res.Output) {
		b.event(func(e Events) { e.note(w) })
	}
	ko, err := readObject(res.Path)
	if err != nil {
		return nil, err
	}
	return plan.Finalize(ko)
}

// warnings are the lines of Kbuild's output that warn.
func warnings(output []byte) []string {
	var out []string
	for _, l := range strings.Split(string(output), "\n") {
		if strings.Contains(l, "arning:") && !strings.Contains(l, "the compiler differs") {
			out = append(out, strings.TrimSpace(l))
		}
	}
	return out
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
