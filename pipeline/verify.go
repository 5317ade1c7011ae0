package pipeline

// Verification: the last step of a build, and `klpc verify` of a finished
// module. The package verify makes the proofs; here its inputs are gathered.

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klpc/klpc/codegen"
	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/internal/modname"
	"github.com/klpc/klpc/kbuild"
	"github.com/klpc/klpc/kmodtmpl"
	"github.com/klpc/klpc/modsource"
	"github.com/klpc/klpc/target"
	"github.com/klpc/klpc/verify"
)

// VerifyError is a module that was built and is not right.
type VerifyError struct{ Report *verify.Report }

func (e *VerifyError) Error() string {
	fault := "internal error: the module that was built is not right; please report this"
	if slices.ContainsFunc(e.Report.Findings, func(f verify.Finding) bool { return f.Proof == verify.Original }) {
		fault = "the running kernel is not the one that these sources, this configuration and this compiler build"
	}
	var lines []string
	for _, f := range e.Report.Findings {
		lines = append(lines, fmt.Sprintf("%s: %s\n    %s", f.Where, f.Detail, f.Hint))
	}
	for _, p := range e.Report.Proofs {
		lines = append(lines, p.Missing...)
	}
	return fault + ":\n  " + strings.Join(lines, "\n  ")
}

// verify proves the module that the build has made.
func (b *builder) verify(ctx context.Context) error {
	b.step("verify the module")
	red, err := verify.ReadRedirects(b.linked.Module)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	// The modules that are patched are known since the plan; those that they
	// take symbols from are not.
	t, err := b.kernel.Target(b.modulesOf(red))
	if err != nil {
		return err
	}
	in, err := b.verifyInputs(ctx, t, b.linked)
	if err != nil {
		return err
	}
	v, err := verify.New(in)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	r := v.Module(b.linked.Module)
	if r.Verdict == verify.Verified || r.Verdict == verify.Incomplete && b.target.Image == nil {
		b.report.Verification = r
		return nil
	}
	return &VerifyError{r}
}

// linked is what linking leaves for the steps after it.
type linked struct {
	Module  []byte
	Init    []byte   // the init file's object, before objtool
	Mod     []byte   // the object of what modpost writes: struct module
	ModName string   // as the kernel calls the module that Mod is for
	Objtool []string // the command that Kbuild ran on the module, without its name
}

// readLinked takes from a folder in which a module was linked what the proofs
// need of it.
func readLinked(dir, name string) (l linked, err error) {
	if l.Objtool, err = kbuild.ObjtoolCommand(dir, name); err != nil {
		return l, err
	}
	if l.Init, err = os.ReadFile(filepath.Join(dir, "klpc_init.o")); err != nil {
		return l, err
	}
	l.ModName = modname.Canonical(name)
	l.Mod, err = os.ReadFile(filepath.Join(dir, name+".mod.o"))
	return l, err
}

// verifyInputs runs objtool over the patched objects and the init file's.
func (b *builder) verifyInputs(ctx context.Context, t codegen.Target, l linked) (verify.Inputs, error) {
	in := verify.Inputs{Known: true, Kernel: b.kernel.verifyKernel(t), ModName: l.ModName}
	var err error
	if in.Mod, err = parseObject("the module's .mod.o", l.Mod); err != nil {
		return in, err
	}
	work, err := os.MkdirTemp(b.work.dir, "verify-")
	if err != nil {
		return in, err
	}
	defer os.RemoveAll(work)
	finish := func(i int, o *elfobj.Object) (*elfobj.Object, error) {
		if l.Objtool == nil {
			return o, nil
		}
		return b.objtool(ctx, l.Objtool, filepath.Join(work, fmt.Sprintf("%d.o", i)), o)
	}
	var names []string
	var patched []*elfobj.Object
	for i := range b.pairs {
		p := &b.pairs[i]
		if p.diff.Verdict == elfdiff.Unchanged {
			continue
		}
		for _, object := range objectNames(p.unit) {
			o := withoutDebug(p.patched)
			if m := t.Modules[object]; m != nil {
				if o, err = verify.Silence(o, m); err != nil {
					return in, fmt.Errorf("internal error: %w", err)
				}
			}
			names, patched = append(names, b.sel.after(p.unit).Source), append(patched, o)
			in.Units = append(in.Units, verify.Unit{Source: names[len(names)-1], Object: object, Diff: p.diff})
		}
	}
	if err := b.each(ctx, names, func(_ context.Context, i int) (err error) {
		in.Units[i].Patched, err = finish(i, patched[i])
		return err
	}); err != nil {
		return in, err
	}
	first, err := parseObject("klpc_init.o", l.Init)
	if err != nil {
		return in, err
	}
	in.Init, err = finish(len(names), withoutDebug(first))
	return in, err
}

// objtool runs objtool on an object, by way of a file.
func (b *builder) objtool(ctx context.Context, command []string, file string, o *elfobj.Object) (*elfobj.Object, error) {
	data, err := o.Encode()
	if err != nil {
		return nil, fmt.Errorf("internal error: %w", err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		return nil, err
	}
	if err := b.kernel.Tree.Objtool(ctx, command, file); err != nil {
		return nil, err
	}
	return readObject(file)
}

// withoutDebug leaves out debug information, which takes most of an object.
func withoutDebug(o *elfobj.Object) *elfobj.Object {
	debug := func(s *elfobj.Section) bool { return verify.IsDebug(s) }
	c := *o
	c.Sections = slices.DeleteFunc(slices.Clone(o.Sections), debug)
	c.Symbols = slices.DeleteFunc(slices.Clone(o.Symbols), func(s *elfobj.Symbol) bool {
		return s.Section != nil && debug(s.Section)
	})
	return &c
}

// verifyKernel is the kernel as the proofs see it.
func (k *Kernel) verifyKernel(t codegen.Target) verify.Kernel {
	if len(t.Modules) == 0 {
		t.Modules = k.anyModule()
	}
	return verify.Kernel{Release: k.Release, Symtab: t.Symtab, Image: t.Image, Exports: t.Exports, Modules: t.Modules,
		Config: k.Tree.Config.Get}
}

// anyModule is a module of the kernel, if there is one: of a kernel without BTF, it
// shows the layout of struct module. One that cannot be read counts as none.
func (k *Kernel) anyModule() map[string]*target.Module {
	text, err := os.ReadFile(filepath.Join(k.Tree.Build, "modules.order"))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		name := modname.OfPath(strings.TrimSuffix(line, filepath.Ext(line)))
		if m, err := k.module(name); err == nil {
			return map[string]*target.Module{name: m}
		}
	}
	return nil
}

// VerifyOptions say what to verify.
type VerifyOptions struct {
	Module string // path
	// Build holds the patches, and how they are compiled. Without any, those
	// that the module brings along are taken.
	Build BuildOptions
}

// Verify proves a finished module.
func Verify(ctx context.Context, k *Kernel, o VerifyOptions) (report *verify.Report, err error) {
	data, err := os.ReadFile(o.Module)
	if err != nil {
		return nil, err
	}
	red, err := verify.ReadRedirects(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Module, err)
	}
	b, err := newVerifyBuilder(k, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.work.close()) }()
	in, err := b.gather(ctx, o, red)
	if err != nil {
		return nil, err
	}
	b.step("verify the module")
	v, err := verify.New(in)
	if err != nil {
		return nil, err
	}
	return v.Module(data), nil
}

// gather compiles the patches again, if they are known, and reads the kernel.
func (b *builder) gather(ctx context.Context, o VerifyOptions, red verify.Redirects) (verify.Inputs, error) {
	known, err := b.givePatches(o, red)
	if err != nil {
		return verify.Inputs{}, err
	}
	if known {
		if err := b.compileAgain(ctx); err != nil {
			return verify.Inputs{}, err
		}
	}
	b.step("read the kernel's symbols")
	t, err := b.kernel.Target(b.modulesOf(red))
	if err != nil || !known {
		return verify.Inputs{Kernel: b.kernel.verifyKernel(t)}, err
	}
	l, err := b.linkInit(ctx, red)
	if err != nil {
		return verify.Inputs{}, err
	}
	return b.verifyInputs(ctx, t, l)
}

func newVerifyBuilder(k *Kernel, o VerifyOptions) (*builder, error) {
	opts := o.Build
	opts.Work, opts.From = "", ""
	b, err := newBuilder(k, opts)
	if err != nil {
		return nil, err
	}
	if b.work, err = openWork(k, opts, 0); err != nil {
		return nil, err
	}
	b.cache = newCompileCache(k, opts.Cache, opts.CacheSize, b.work.keep, b.note)
	return b, nil
}

// givePatches settles which patches are compiled: those of the command line, or
// those that the module brings along. It tells whether there are any.
func (b *builder) givePatches(o VerifyOptions, red verify.Redirects) (bool, error) {
	if len(o.Build.Patches) > 0 || o.Build.Git != "" {
		return true, nil
	}
	if red.Source == nil {
		b.note(fmt.Sprintf("%s does not bring its patches along: name them with --patch to compare the module with what they compile to", filepath.Base(o.Module)))
		return false, nil
	}
	src, err := modsource.Decode(red.Source)
	if err != nil {
		return false, fmt.Errorf("%s: %w; name the patches with --patch", o.Module, err)
	}
	b.o.Fuzz = src.Fuzz
	for i, p := range src.Patches {
		// The name is the module's word: it is no path here.
		dir := filepath.Join(b.work.dir, "patches", fmt.Sprint(i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return false, err
		}
		file := filepath.Join(dir, filepath.Base(filepath.Clean("/patch/"+p.Name)))
		if err := os.WriteFile(file, p.Text, 0o644); err != nil {
			return false, err
		}
		b.o.Patches = append(b.o.Patches, file)
	}
	return true, nil
}

// compileAgain runs the steps of a build up to the comparison.
func (b *builder) compileAgain(ctx context.Context) error {
	for _, s := range buildSteps() {
		if s.name == "plan" {
			break
		}
		if err := s.run(b, ctx); err != nil {
			if errors.Is(err, ErrNothing) || errors.Is(err, ErrUnpatchable) {
				return nil // nothing to redirect: the proof says what the module has
			}
			return err
		}
	}
	return nil
}

// modulesOf are the modules that the livepatch or the patch names.
func (b *builder) modulesOf(red verify.Redirects) []string {
	names := slices.Clone(red.Modules)
	for i := range b.pairs {
		if b.pairs[i].diff == nil || b.pairs[i].diff.Verdict == elfdiff.Unchanged {
			continue
		}
		for _, object := range objectNames(b.pairs[i].unit) {
			if object != codegen.VMLinux {
				names = append(names, object)
			}
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return slices.DeleteFunc(names, func(n string) bool { _, err := b.kernel.FindModule(n); return err != nil })
}

// initModule is the name of the module that linkInit makes.
const initModule = "klpc_verify"

// linkInit compiles the init file that the module's redirect table calls for.
func (b *builder) linkInit(ctx context.Context, red verify.Redirects) (linked, error) {
	b.step("compile the init file")
	dir := filepath.Join(b.work.dir, "init")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return linked{}, err
	}
	d := kmodtmpl.Data{Name: initModule, Replace: red.Replace, Namespaces: red.Namespaces}
	funcs, callbacks := 0, 0
	for _, o := range red.Objects {
		x := kmodtmpl.Object{Name: o.Name}
		if o.Name == verify.VMLinux {
			x.Name = ""
		}
		for _, f := range o.Funcs {
			x.Funcs = append(x.Funcs, kmodtmpl.Func{OldName: f.Name, Sympos: f.Sympos, Pointer: fmt.Sprint(codegen.FuncPointer, funcs)})
			funcs++
		}
		for _, kind := range o.Callbacks {
			x.Callbacks = append(x.Callbacks, kmodtmpl.Callback{Field: kind, Pointer: fmt.Sprint(codegen.CallbackPointer, callbacks)})
			callbacks++
		}
		d.Objects = append(d.Objects, x)
	}
	files, err := kmodtmpl.Render(d)
	if err != nil {
		return linked{}, err
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Text, 0o644); err != nil {
			return linked{}, err
		}
	}
	if _, err = b.kernel.Tree.LinkModule(ctx, kbuild.ModuleJob{Dir: dir, Name: initModule}); err != nil {
		return linked{}, err
	}
	return readLinked(dir, initModule)
}

// source is what the module says about its patches.
func (b *builder) source(ctx context.Context) ([]byte, error) {
	s := modsource.Source{Fuzz: b.o.Fuzz}
	files, err := patchFiles(b.o.Patches)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		s.Patches = append(s.Patches, modsource.Patch{Name: filepath.Base(f), Text: text})
	}
	if b.o.Git != "" {
		text, err := gitText(ctx, b.kernel.Tree.Source, b.o.Git)
		if err != nil {
			return nil, err
		}
		s.Patches = append(s.Patches, modsource.Patch{Name: "commits", Text: text})
	}
	for i := range b.pairs {
		if b.pairs[i].diff.Verdict != elfdiff.Unchanged {
			s.Units = append(s.Units, b.sel.after(b.pairs[i].unit).Source)
		}
	}
	slices.Sort(s.Units)
	return modsource.Encode(s)
}

// sourceSection is the section of the module that holds its patches.
func sourceSection(data []byte) *elfobj.Section {
	return &elfobj.Section{Name: modsource.Section, Type: elf.SHT_PROGBITS, Align: 1, Data: data, Size: uint64(len(data))}
}
