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
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sync/errgroup"

	"github.com/klpc/klpc/codegen"
	"github.com/klpc/klpc/cpptext"
	"github.com/klpc/klpc/diff"
	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/kbuild"
	"github.com/klpc/klpc/kmodtmpl"
	"github.com/klpc/klpc/typediff"
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
	Work      string   // the work folder, which stays; empty: among the temporary files
	From      string   // go on from this step (BuildSteps) with a work folder that was kept
	Version   string   // of klpc: another one's work folder is not gone on with
	Launcher  []string // put before every compile: ccache, distcc
	// AllowLayout names types whose change the author has checked: "struct foo",
	// "foo", a macro's name, or "all".
	AllowLayout []string
	Cache       string
	CacheSize   int64 // bytes of compile results to keep; 0: none
	Events      Events
}

// The outcomes of a build that are not a module.
var (
	// ErrNothing: no function of the running kernel changes.
	ErrNothing = errors.New("nothing to patch: the patch changes no function of this kernel")
	// ErrUnpatchable: Report.Problems say why.
	ErrUnpatchable = errors.New("this change cannot be livepatched")
)

// PatchError is a patch that cannot be read or does not apply.
type PatchError struct{ Err error }

func (e *PatchError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong, see errors.Join.
func (e *PatchError) Unwrap() []error { return []error{e.Err} }

// MismatchError is a kernel that is not the one that its tree builds.
type MismatchError struct{ Lines []string }

func (e *MismatchError) Error() string {
	return "the running kernel is not the one that these sources, this configuration and this compiler build:\n  " +
		strings.Join(e.Lines, "\n  ")
}

// OriginalError is a unit of the kernel that does not compile as it is.
type OriginalError struct{ Err error }

func (e *OriginalError) Error() string { return "the original does not compile: " + e.Err.Error() }
func (e *OriginalError) Unwrap() error { return e.Err }

// PanicError is a fault of klpc itself.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("internal error: %v; please report it with this:\n%s", e.Value, e.Stack)
}

// builder carries one build along: what one step leaves, later ones take.
type builder struct {
	o      BuildOptions
	kernel *Kernel
	work   *workFolder
	cache  *compileCache
	report *Report
	timing stopwatch
	at     StepEvent   // the running step
	reuse  bool        // the step's results come from the work folder alone
	edit   atomic.Bool // the patch has to be changed: the error is about it

	files    []touched // apply
	identity identity
	sel      *selection // select
	shadow   *kbuild.Shadow
	place    *place // of the shadow, if that is not in the work folder
	// problems are those of whole files; the rest of the patch is looked at
	// all the same, so that all problems come out together.
	problems []elfdiff.Problem
	units    []kbuild.Unit  // preprocess
	gated    bool           // compile: the patch may change types
	pairs    []pair         // compile, compare
	target   codegen.Target // plan
	planned  *codegen.Plan
	linked   linked // link

	mu sync.Mutex // events
}

// moduleName is what the kernel allows; MODULE_NAME_LEN is 56 with the NUL.
var moduleName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,55}$`)

// Build makes a livepatch module from patches. The report is never nil if the
// error is ErrNothing or ErrUnpatchable. Nothing is written unless err is nil.
func Build(ctx context.Context, k *Kernel, o BuildOptions) (report *Report, err error) {
	from, err := stepIndex(o.From)
	if err != nil {
		return nil, err
	}
	b, err := newBuilder(k, o)
	if err != nil {
		return nil, err
	}
	if err := b.nameModule(); err != nil {
		return nil, err
	}
	if err := checkWritable(b.o.Output); err != nil {
		return nil, err
	}
	if b.work, err = openWork(k, o, from); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	b.cache = newCompileCache(k, o.Cache, o.CacheSize, b.work.keep, b.note)
	err = b.runSteps(ctx, from)
	if err == nil {
		err = b.writeModule()
	}
	b.sayKept(err)
	return b.report, err
}

func (b *builder) close() error {
	err := b.work.close()
	if b.place != nil {
		err = errors.Join(err, b.place.close())
	}
	return err
}

// newBuilder settles the options that do not depend on the patches.
func newBuilder(k *Kernel, o BuildOptions) (*builder, error) {
	if o.Jobs <= 0 {
		o.Jobs = runtime.NumCPU()
	}
	var err error
	o.Launcher, err = findLauncher(o.Launcher)
	return &builder{o: o, kernel: k, report: &Report{Kernel: k.Release}}, err
}

// writeModule ends a build that has a module.
func (b *builder) writeModule() error {
	if err := renameio.WriteFile(b.o.Output, b.linked.Module, 0o644); err != nil {
		return fmt.Errorf("write the module: %w", err)
	}
	b.report.Timings = b.timing.end()
	b.report.Module = b.o.Output
	b.report.Size = len(b.linked.Module)
	return nil
}

// inPatch marks an error that the author of the patch has to deal with.
func (b *builder) inPatch(err error) error {
	b.edit.Store(true)
	return err
}

// sayKept tells of a work folder that stays, and how to go on with it.
func (b *builder) sayKept(err error) {
	if !b.work.keep {
		return
	}
	k := KeptEvent{Dir: b.work.dir, From: b.at.Name}
	switch {
	case err == nil:
		k.From = ""
	case errors.Is(err, ErrNothing), errors.Is(err, ErrUnpatchable), b.edit.Load():
		k.From, k.Edit = buildSteps()[0].name, true
	}
	b.event(func(e Events) { e.kept(k) })
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

// apply reads the patches and applies them in memory.
func (b *builder) apply(ctx context.Context) error {
	b.step("apply the patch")
	tree := b.kernel.Tree
	patches, err := readPatches(b.o.Patches)
	if err != nil {
		return b.inPatch(&PatchError{err})
	}
	if b.o.Git != "" {
		commits, err := gitPatches(ctx, tree.Source, b.o.Git)
		if err != nil {
			return b.inPatch(err)
		}
		patches = append(patches, commits...)
	}
	b.files, err = applyAll(tree.Source, patches, diff.Options{Fuzz: b.o.Fuzz}, b.note)
	if err != nil {
		return b.inPatch(&PatchError{err})
	}
	if b.work.keep {
		b.identity, err = b.identify()
	}
	return err
}

// selectUnits finds the units that may see a change.
func (b *builder) selectUnits(ctx context.Context) error {
	b.step("find the units that may see the change")
	var err error
	if b.sel, err = selectUnits(ctx, b.kernel.Tree, b.files, b.depsCache(), filepath.Join(b.work.dir, "kbuild")); err != nil {
		return err
	}
	b.report.NoEffect, b.report.Notes = b.sel.noEffect, b.sel.notes
	b.problems = b.sel.problems
	return b.makeShadow()
}

// makeShadow makes the patched view of the tree.
func (b *builder) makeShadow() error {
	files := map[string]*[]byte{}
	for _, f := range b.files {
		if f.content == nil {
			files[f.path] = nil
		} else {
			files[f.path] = &f.pinned
		}
	}
	b.addHelpers(files)
	var err error
	b.shadow, err = kbuild.NewShadow(b.kernel.Tree, b.shadowDir(), files)
	return err
}

// preprocess settles which units are compiled.
func (b *builder) preprocess(ctx context.Context) error {
	more, err := b.decideCandidates(ctx, b.sel.candidates)
	if err != nil {
		return err
	}
	b.units = slices.Concat(b.sel.units, more)
	if len(b.units) == 0 {
		if err := b.checkCompiles(ctx); err != nil {
			return err
		}
		return b.nothing()
	}
	return nil
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

// each runs work for each of the named pieces in parallel and reports each. Of
// several that fail, the first in order decides: those before a failed one run to
// their end, so that the error does not depend on which was quicker; those behind
// it do not begin.
func (b *builder) each(ctx context.Context, names []string, work func(context.Context, int) error) error {
	var g errgroup.Group
	g.SetLimit(b.o.Jobs)
	errs := make([]error, len(names))
	var failed atomic.Int64 // lowest index of a failed one
	failed.Store(int64(len(names)))
	done := 0
	for i, name := range names {
		g.Go(func() error {
			if err := ctx.Err(); err != nil || int64(i) > failed.Load() {
				errs[i] = err
				return nil
			}
			b.event(func(e Events) { e.unit(UnitEvent{ID: i, Name: name, Done: done, Total: len(names)}) })
			started := time.Now()
			if err := guarded(ctx, i, work); err != nil {
				errs[i] = err
				for low := failed.Load(); int64(i) < low && !failed.CompareAndSwap(low, int64(i)); low = failed.Load() {
				}
				return nil
			}
			b.event(func(e Events) {
				done++
				e.unit(UnitEvent{ID: i, Name: name, Done: done, Total: len(names), Ended: true, Elapsed: time.Since(started)})
			})
			return nil
		})
	}
	_ = g.Wait() // errors are in errs
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// guarded turns a panic of a piece of work, which runs in a goroutine of its
// own, into an error.
func guarded(ctx context.Context, i int, work func(context.Context, int) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return work(ctx, i)
}

func (b *builder) tempName(u kbuild.Unit, suffix string) string {
	return filepath.Join(b.work.dir, "obj", strings.ReplaceAll(strings.TrimSuffix(u.Object, ".o"), "/", "~")+"."+suffix)
}

// sectionFlags put every function and variable into a section of its own.
var sectionFlags = []string{"-ffunction-sections", "-fdata-sections"}

// compileFlags are what a unit's command gets behind Kbuild's own arguments.
func (b *builder) compileFlags(u kbuild.Unit) []string {
	if !b.gated {
		return sectionFlags
	}
	return slices.Concat(sectionFlags, debugFlags(u))
}

// pair is a unit compiled twice.
type pair struct {
	unit          kbuild.Unit
	orig, patched *elfobj.Object
	diff          *elfdiff.Result
	crcs          []elfdiff.Problem
	mismatch      []string
	notes         []string

	types         []typediff.TypeChange
	typeProblems  []elfdiff.Problem
	samePrototype map[string]bool // of exported symbols, if types change
}

// compile compiles each unit as it is and as patched.
func (b *builder) compile(ctx context.Context) error {
	early := b.pairs // of sampleTypes
	var left []kbuild.Unit
	for _, u := range b.units {
		if pairOf(early, u) == nil {
			left = append(left, u)
		}
	}
	if len(left) > 0 {
		b.step(fmt.Sprintf("compile %s, as it is and as patched", count(len(left), "unit")))
	}
	b.gated = b.typesMayChange()
	pairs, err := b.compilePairs(ctx, left)
	if err != nil {
		return err
	}
	b.pairs = make([]pair, len(b.units))
	for i, u := range b.units {
		if p := pairOf(early, u); p != nil {
			b.pairs[i] = *p
		} else {
			b.pairs[i], pairs = pairs[0], pairs[1:]
		}
	}
	return nil
}

func pairOf(pairs []pair, u kbuild.Unit) *pair {
	if i := slices.IndexFunc(pairs, func(p pair) bool { return p.unit.Object == u.Object }); i >= 0 {
		return &pairs[i]
	}
	return nil
}

// compilePairs compiles units and compares the objects of each.
func (b *builder) compilePairs(ctx context.Context, units []kbuild.Unit) ([]pair, error) {
	pairs := make([]pair, len(units))
	missing := make([]atomic.Int32, len(units)) // sides that are not compiled yet
	var names []string
	for i, u := range units {
		names = append(names, u.Source, b.sel.after(u).Source+" (patched)")
		pairs[i].unit = u
		missing[i].Store(2)
	}
	gate, end := b.gate(compileMemory)
	defer end()
	return pairs, b.each(ctx, names, func(ctx context.Context, i int) error {
		defer gate.enter()()
		p, side := &pairs[i/2], b.compileOriginal
		if i%2 == 1 {
			side = b.compilePatched
		}
		if err := side(ctx, p); err != nil || missing[i/2].Add(-1) > 0 {
			return err
		}
		return b.comparePair(ctx, p)
	})
}

func (b *builder) compileOriginal(ctx context.Context, p *pair) error {
	if b.sel.fresh[p.unit.Object] {
		return nil // compared with an empty object
	}
	job := kbuild.CompileJob{Unit: p.unit, Out: b.tempName(p.unit, "orig.o"), Extra: b.compileFlags(p.unit), Launcher: b.o.Launcher}
	data, err := b.object(ctx, job)
	if err != nil {
		return err
	}
	p.orig, err = parseObject(job.Out, data)
	return err
}

func (b *builder) compilePatched(ctx context.Context, p *pair) error {
	u := b.sel.after(p.unit)
	job := kbuild.CompileJob{Unit: u, Out: b.tempName(p.unit, "patched.o"), Extra: b.compileFlags(u), Launcher: b.o.Launcher, Env: b.launcherEnv(), Shadow: b.shadow}
	data, err := b.object(ctx, job)
	var ce *kbuild.CompileError
	if errors.As(err, &ce) {
		data, err = b.withoutPins(ctx, job)
	}
	if errors.As(err, &ce) {
		return b.inPatch(err)
	}
	if err != nil {
		return err
	}
	p.patched, err = parseObject(job.Out, data)
	return err
}

// object is the object of a job, from the work folder if that holds it.
func (b *builder) object(ctx context.Context, job kbuild.CompileJob) ([]byte, error) {
	data, why := b.keptObject(job)
	if why == "" {
		return data, nil
	}
	if b.reuse {
		return nil, fmt.Errorf("%s cannot be gone on with: %s; go on from an earlier step, with --from compile", filepath.Base(job.Out), why)
	}
	started := time.Now()
	data, deps, err := b.cache.object(ctx, job)
	if err != nil && job.Shadow == nil {
		err = &OriginalError{err}
	}
	if err != nil {
		return nil, err
	}
	return data, b.keepObject(job, data, deps, started)
}

// compare compares the objects of each unit, and the versions of the symbols
// that it exports.
func (b *builder) compare(ctx context.Context) error {
	var changed []int
	var names []string
	for i := range b.pairs {
		p := &b.pairs[i]
		if p.diff.Verdict != elfdiff.Unchanged && len(p.diff.Orig.Exports) > 0 {
			changed, names = append(changed, i), append(names, p.unit.Source)
		}
	}
	if len(changed) == 0 {
		return nil
	}
	b.step("compare the versions of exported symbols")
	return b.each(ctx, names, func(ctx context.Context, i int) error { return b.compareCRCs(ctx, &b.pairs[changed[i]]) })
}

// comparePair compares a unit's objects as soon as both are there: where hundreds
// of units are compiled, only the objects that change stay in memory.
func (b *builder) comparePair(ctx context.Context, p *pair) error {
	if p.orig == nil {
		p.orig = emptyObject(p.patched)
		p.notes = initcallNotes(p)
	}
	var err error
	if p.diff, err = b.diff(ctx, p); err != nil {
		return fmt.Errorf("%s: %w", p.unit.Source, err)
	}
	if p.diff.Verdict == elfdiff.Unchanged {
		p.orig, p.patched, p.diff = nil, nil, &elfdiff.Result{Verdict: elfdiff.Unchanged}
		return nil
	}
	b.compareTypes(p)
	return nil
}

// diff compares a unit's objects. Only if a function without an ftrace entry has
// changed is the source asked which of them are inline.
func (b *builder) diff(ctx context.Context, p *pair) (*elfdiff.Result, error) {
	r, err := elfdiff.Compare(p.orig, p.patched)
	if err != nil {
		return nil, err
	}
	names := r.MayBeInline()
	if len(names) == 0 {
		return r, nil
	}
	text, err := b.cache.text(ctx, b.originalText(p.unit))
	if err != nil {
		return nil, err
	}
	return elfdiff.CompareKnowing(p.orig, p.patched, elfdiff.Source{Inline: cpptext.DeclaredInline(text, names)})
}

// withoutPins compiles the patched text as the author wrote it, after it
// failed with pinned lines: then the message is about the author's lines, and
// if pinning was the cause, the compile succeeds.
func (b *builder) withoutPins(ctx context.Context, job kbuild.CompileJob) ([]byte, error) {
	files := map[string]*[]byte{}
	for _, f := range b.files {
		files[f.path] = f.content
	}
	b.addHelpers(files)
	dir, err := os.MkdirTemp(b.work.dir, "unpinned-")
	if err != nil {
		return nil, err
	}
	if job.Shadow, err = kbuild.NewShadow(b.kernel.Tree, dir, files); err != nil {
		return nil, err
	}
	started := time.Now()
	data, deps, err := b.cache.object(ctx, job)
	if err != nil {
		return nil, err
	}
	return data, b.keepObject(job, data, deps, started)
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
func (b *builder) plan(ctx context.Context) error {
	pairs := b.pairs
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
		return b.nothing()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	slices.Sort(modules)
	t, err := b.kernel.Target(slices.Compact(modules))
	if err != nil {
		return err
	}
	b.target = t
	plan, err := codegen.Decide(units, t)
	if err != nil {
		return err
	}
	plan.Problems = append(plan.Problems, b.judgeLayout()...)
	for i := range pairs {
		plan.Mismatches = append(plan.Mismatches, pairs[i].mismatch...)
	}
	plan.Problems = append(plan.Problems, b.problems...)
	elfdiff.SortProblems(plan.Problems)
	b.findRisks()
	b.report.fill(plan, b.files, b.original)
	switch {
	case len(plan.Problems) > 0:
		return ErrUnpatchable
	case plan.Empty():
		return ErrNothing
	case len(plan.Mismatches) > 0:
		return &MismatchError{plan.Mismatches}
	}
	b.planned = plan
	return nil
}

// link builds the module through the kernel's own Kbuild and finishes it.
func (b *builder) link(ctx context.Context) error {
	plan := b.planned
	b.step("link the module")
	dir := filepath.Join(b.work.dir, "module")
	if err := b.work.remove("module"); err != nil { // of an earlier run
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	var prebuilt []string
	for i, o := range plan.Emit() {
		if o == nil {
			continue
		}
		name := fmt.Sprintf("klpc_unit%d", i)
		data, err := o.Encode()
		if err != nil {
			return fmt.Errorf("internal error: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".o_shipped"), data, 0o644); err != nil {
			return err
		}
		prebuilt = append(prebuilt, name)
	}
	files, err := kmodtmpl.Render(plan.Template(b.report.Name, !b.o.NoReplace, prebuilt))
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Text, 0o644); err != nil {
			return err
		}
	}
	job := kbuild.ModuleJob{Dir: dir, Name: b.report.Name}
	for _, p := range prebuilt {
		job.Prebuilt = append(job.Prebuilt, p+".o")
	}
	res, err := b.kernel.Tree.LinkModule(ctx, job)
	if err != nil {
		return err
	}
	for _, w := range warnings(res.Output, plan.Notes) {
		b.note(w)
	}
	ko, err := readObject(res.Path)
	if err != nil {
		return err
	}
	source, err := b.source(ctx)
	if err != nil {
		return err
	}
	ko.Sections = append(ko.Sections, sourceSection(source))
	if b.linked, err = readLinked(dir, b.report.Name); err != nil {
		return err
	}
	b.linked.Module, err = plan.Finalize(ko)
	return err
}

// deadCode is objtool's warning of code that nothing leads to.
var deadCode = regexp.MustCompile(`objtool: (\S+)\+0x[0-9a-f]+: unreachable instruction`)

// warnings are the lines of Kbuild's output that warn. Where a note says that a
// tracepoint stays silent in a function, nothing leads to its body.
func warnings(output []byte, notes []string) []string {
	var out []string
	for _, l := range strings.Split(string(output), "\n") {
		m := deadCode.FindStringSubmatch(l)
		if m != nil && slices.ContainsFunc(notes, func(n string) bool { return strings.HasSuffix(n, "stays silent in the patched "+m[1]) }) {
			continue
		}
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
