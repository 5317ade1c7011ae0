package pipeline

// Which translation units see a change of the source.
//
// Every file of the patch ends in exactly one of three ways: it is compiled
// (by itself or into those that include it), it is listed as without effect on
// the running kernel, or it is refused by name with a reason. A file whose
// place in the tree or whose name says enough is judged by that. A source that
// the kernel was built from is compiled, and so is whoever includes it. What
// the makefiles say about new and removed sources, and what a changed makefile
// says about the others, Kbuild is asked (makefiles.go).

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/klpc/klpc/codegen"
	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/kbuild"
)

// The problems that the choice of units finds.
const (
	NotKernelCode  elfdiff.ProblemKind = "not-kernel-code"
	BuildFile      elfdiff.ProblemKind = "build-file"
	RemovedSource  elfdiff.ProblemKind = "removed-source"
	GeneratorInput elfdiff.ProblemKind = "generator-input"
)

// selection is what the patch's files mean for this kernel.
type selection struct {
	units      []kbuild.Unit // to be compiled
	candidates []kbuild.Unit // to be compiled if their preprocessed text changes
	included   []string      // changed files that candidates read, sorted
	also       int           // how many of units read one of included as well
	noEffect   []string      // files that never reach the running kernel
	problems   []elfdiff.Problem
	notes      []string
	// fresh are the objects, among those of units, that the running kernel
	// was built without.
	fresh map[string]bool
	// patched holds the units whose source or command the patch changes, by
	// their object in the running kernel.
	patched map[string]kbuild.Unit
	// defines are the compiler options of new symbols in Kconfig.
	defines []string
}

// after is the unit as the patch makes it.
func (s *selection) after(u kbuild.Unit) kbuild.Unit {
	if p, ok := s.patched[u.Object]; ok {
		u = p
	}
	if len(s.defines) > 0 {
		u.Args = slices.Concat(u.Args, s.defines)
	}
	return u
}

// selector sorts the files of a patch.
type selector struct {
	tree  *kbuild.Tree
	cache string // of Tree.Readers
	work  string // a folder for what Kbuild is asked
	files []touched
	asks  []*touched // files whose meaning the makefiles decide

	kconfigs []*touched
	symbols  []newConfig
	config   []string // lines of auto.conf for new symbols
	*selection
}

// outside are the folders whose files never become part of a running kernel.
var outside = []string{"Documentation/", "LICENSES/", "samples/", "tools/", "rust/doctests/",
	"scripts/coccinelle/", "scripts/gdb/", "scripts/kconfig/", "scripts/package/", "scripts/tracing/", "scripts/clang-tools/"}

// shared are folders for tools whose sources the kernel may include.
var shared = []string{"tools/lib/", "tools/include/", "tools/arch/", "scripts/dtc/libfdt/"}

// objtool rewrites the kernel's code while it is built.
const objtool = "tools/objtool/"

// documents are file names that tell people something, not a compiler.
var documents = regexp.MustCompile(`(^|/)(README[^/]*|TODO|[^/]*\.(rst|yaml|md|config)|[a-z0-9_]*defconfig|\.[a-z][^/]*)$|^(MAINTAINERS|CREDITS|COPYING)$|^scripts/(checkpatch\.pl|get_maintainer\.pl|spelling\.txt|const_structs\.checkpatch|kernel-doc)$`)

// selectUnits finds the translation units that see a change. work is a folder
// that does not exist yet. Where the patch renames a source, its file gets
// pinned lines as a changed one has.
func selectUnits(ctx context.Context, t *kbuild.Tree, files []touched, cache, work string) (*selection, error) {
	s := &selector{tree: t, cache: cache, work: work, files: files,
		selection: &selection{fresh: map[string]bool{}, patched: map[string]kbuild.Unit{}}}
	var errs []error
	for i := range files {
		if err := s.file(&files[i]); err != nil {
			errs = append(errs, err)
		}
	}
	if err := s.configure(ctx); err != nil {
		errs = append(errs, err)
	}
	if err := s.askKbuild(ctx); err != nil {
		errs = append(errs, err)
	}
	s.units = uniqueUnits(s.units)
	s.candidates = uniqueUnits(s.candidates)
	s.candidates = slices.DeleteFunc(s.candidates, func(u kbuild.Unit) bool {
		_, found := slices.BinarySearchFunc(s.units, u, byObject)
		if found {
			s.also++
		}
		return found
	})
	slices.Sort(s.included)
	slices.Sort(s.noEffect)
	return s.selection, errors.Join(errs...)
}

func byObject(a, b kbuild.Unit) int { return cmp.Compare(a.Object, b.Object) }

func uniqueUnits(units []kbuild.Unit) []kbuild.Unit {
	slices.SortFunc(units, byObject)
	return slices.CompactFunc(units, func(a, b kbuild.Unit) bool { return a.Object == b.Object })
}

func (s *selector) file(f *touched) error {
	base, ext := path.Base(f.path), path.Ext(f.path)
	switch {
	case isOutside(s.tree, f.path):
		s.noEffect = append(s.noEffect, f.path)
		return nil
	case strings.HasPrefix(base, "Kconfig"):
		return s.kconfig(f)
	case isMakefile(f.path):
		s.makefile(f)
		return nil
	case ext == ".rs":
		s.rust(f)
		return nil
	case strings.HasSuffix(base, ".lds") || strings.HasSuffix(base, ".lds.S") || strings.HasSuffix(base, ".lds.h"):
		s.refuse(f, "linker script: it decides where the code of the whole kernel lies")
		return nil
	case ext == ".c" || ext == ".S":
		return s.source(f)
	}
	return s.readers(f)
}

func isOutside(t *kbuild.Tree, file string) bool {
	if isShared(file) || strings.HasPrefix(file, objtool) {
		return false
	}
	if hasPrefix(file, outside) || documents.MatchString(file) {
		return true
	}
	rest, ok := strings.CutPrefix(file, "arch/")
	arch, _, inArch := strings.Cut(rest, "/")
	return ok && inArch && arch != t.SrcArch
}

func isShared(file string) bool { return hasPrefix(file, shared) }

func hasPrefix(file string, folders []string) bool {
	return slices.ContainsFunc(folders, func(dir string) bool { return strings.HasPrefix(file, dir) })
}

func isMakefile(file string) bool {
	base := path.Base(file)
	return base == "Makefile" || base == "Kbuild" || strings.HasPrefix(base, "Makefile.") || strings.HasPrefix(base, "Kbuild.")
}

// rust: code in Rust needs another compiler, and its functions have no stable
// names in the kernel.
func (s *selector) rust(f *touched) {
	if !s.tree.Config.Bool("CONFIG_RUST") {
		s.noEffect = append(s.noEffect, f.path)
		return
	}
	s.refuse(f, "Rust: not supported")
}

// source is a .c or .S file.
func (s *selector) source(f *touched) error {
	if f.isNew || f.content == nil {
		if why := kbuild.SpecialPath(f.path); why != "" && kbuild.KindOf(f.path) == kbuild.C {
			s.refuse(f, why)
			return nil
		}
		s.asks = append(s.asks, f)
		return nil
	}
	units, err := s.tree.UnitsOf(f.path)
	if errors.Is(err, kbuild.ErrNoUnit) {
		return s.readers(f) // included by another file, or not built at all
	}
	if err != nil {
		return err
	}
	for _, u := range units {
		if why := u.Special(); why != "" {
			s.refuse(f, why)
			return nil
		}
	}
	s.units = append(s.units, units...)
	// A few sources are compiled by themselves and included as well
	// (fs/binfmt_elf.c); whoever does that is near.
	if !s.includedNear(f.path) {
		return nil
	}
	more, err := s.tree.Readers(f.path, s.cache)
	s.candidates = append(s.candidates, more...)
	s.included = append(s.included, f.path)
	return err
}

// includedNear tells whether a source in the same folder or in the one above
// includes a file.
func (s *selector) includedNear(file string) bool {
	include := includeOf(file)
	for _, dir := range []string{path.Dir(file), path.Dir(path.Dir(file))} {
		names, err := filepath.Glob(filepath.Join(s.tree.Source, dir, "*.[cSh]"))
		if err != nil {
			return true // the tree's own path is no pattern: look thoroughly
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err == nil && include.Match(text) {
				return true
			}
		}
	}
	return false
}

// includeOf matches an include of a file of that name.
func includeOf(file string) *regexp.Regexp {
	return regexp.MustCompile(`(?m)^[ \t]*#[ \t]*include[ \t]*["<]([^">]*/)?` + regexp.QuoteMeta(path.Base(file)) + `[">]`)
}

// readers is a file that reaches the kernel only through those that read it.
func (s *selector) readers(f *touched) error {
	if f.isNew {
		s.newReadable(f)
		return nil
	}
	units, err := s.tree.Readers(f.path, s.cache)
	if err != nil {
		return err
	}
	ordinary := slices.DeleteFunc(slices.Clone(units), func(u kbuild.Unit) bool { return u.Special() != "" })
	if len(ordinary) > 0 {
		s.candidates = append(s.candidates, ordinary...)
		s.included = append(s.included, f.path)
		return nil
	}
	if isShared(f.path) {
		s.noEffect = append(s.noEffect, f.path)
		return nil
	}
	assembly := kbuild.KindOf(f.path) == kbuild.Assembly
	if why := kbuild.SpecialPath(f.path); why != "" && !assembly {
		s.refuse(f, why)
		return nil
	}
	special, err := s.tree.SpecialReaders(f.path, s.cache)
	if err != nil {
		return err
	}
	if len(special) > 0 {
		s.refuse(f, fmt.Sprintf("it is read by %s: %s", special[0].Source, special[0].Special()))
		return nil
	}
	if made := s.generates(f.path); made != "" {
		s.problem(GeneratorInput, f.path, "the build makes other files of it ("+made+"), and klpc does not run its generators",
			"put the change into the functions that use what is generated; or reboot into a fixed kernel")
		return nil
	}
	s.noEffect = append(s.noEffect, f.path)
	return nil
}

// newReadable is a new file that is no source: it matters if a file of the
// patch includes it.
func (s *selector) newReadable(f *touched) {
	include := includeOf(f.path)
	for _, other := range s.files {
		if other.content != nil && other.path != f.path && include.Match(*other.content) {
			return // compiled with that one
		}
	}
	if made := s.generates(f.path); made != "" {
		s.problem(GeneratorInput, f.path, "the build makes other files of it ("+made+"), and klpc does not run its generators",
			"add what would be generated to the patch, under another name")
		return
	}
	s.noEffect = append(s.noEffect, f.path)
}

// generates says what Kbuild makes of a file that is neither C nor assembly:
// the object or the makefile that shows it; "" if nothing does.
func (s *selector) generates(file string) string {
	if ext := path.Ext(file); ext == ".h" || ext == ".c" || ext == ".S" {
		return ""
	}
	stem := strings.TrimSuffix(file, path.Ext(file))
	for _, object := range []string{file + ".o", stem + ".o", stem + ".dtb.o", stem + ".tab.o", stem + ".lex.o"} {
		if _, err := s.tree.UnitOfObject(object); err == nil {
			return object
		}
	}
	name := regexp.MustCompile(`(^|[^\w.-])` + regexp.QuoteMeta(strings.TrimSuffix(path.Base(file), "_shipped")) + `($|[^\w.-])`)
	for dir := path.Dir(file); ; dir = path.Dir(dir) {
		for _, base := range []string{"Kbuild", "Makefile"} {
			text, err := os.ReadFile(filepath.Join(s.tree.Source, dir, base))
			if err == nil && name.Match(text) && s.buildsNear(dir) {
				return path.Join(dir, base)
			}
		}
		if dir == "." {
			return ""
		}
	}
}

// buildsNear tells whether this kernel was built from sources in a folder or
// below the one above it.
func (s *selector) buildsNear(dir string) bool {
	above := path.Dir(dir)
	if above == "." {
		return true
	}
	units, err := s.tree.UnitsIn(above, kbuild.Everything)
	return err != nil || len(units) > 0
}

func (s *selector) refuse(f *touched, why string) {
	s.problem(NotKernelCode, f.path, why, "this part of the kernel cannot be livepatched; leave the file out of the patch, or reboot into a fixed kernel")
}

func (s *selection) problem(kind elfdiff.ProblemKind, file, detail, hint string) {
	s.problems = append(s.problems, elfdiff.Problem{Kind: kind, At: elfobj.Pos{Object: file}, Detail: detail, Hint: hint})
}

func (s *selection) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

// objectNames are the livepatch objects of a unit: vmlinux, or the modules
// that it is linked into.
func objectNames(u kbuild.Unit) []string {
	if len(u.Modules) == 0 {
		return []string{codegen.VMLinux}
	}
	return u.Modules
}
