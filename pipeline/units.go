package pipeline

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/klpc/klpc/codegen"
	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/kbuild"
)

// The problems that the choice of units finds.
const (
	NotKernelCode elfdiff.ProblemKind = "not-kernel-code"
	BuildFile     elfdiff.ProblemKind = "build-file"
	NewSource     elfdiff.ProblemKind = "new-source"
	RemovedSource elfdiff.ProblemKind = "removed-source"
)

// selection is what the patch's files mean for this kernel.
type selection struct {
	units      []kbuild.Unit // to be compiled
	candidates []kbuild.Unit // to be compiled if their preprocessed text changes
	noEffect   []string      // files that never reach the running kernel
	problems   []elfdiff.Problem
}

// outside are the folders whose files never become part of a running kernel.
var outside = []string{"Documentation/", "LICENSES/", "samples/", "tools/", "rust/doctests/"}

// buildTools are folders of programs that run while the kernel is built: they
// may change what it becomes.
var buildTools = []string{"tools/objtool/", "tools/lib/", "tools/build/", "tools/include/"}

// selectUnits finds the translation units that see a change.
func selectUnits(t *kbuild.Tree, files []touched, cache string) (*selection, error) {
	s := &selection{}
	var errs []error
	for _, f := range files {
		if err := s.file(t, f, cache); err != nil {
			errs = append(errs, err)
		}
	}
	byObject := func(a, b kbuild.Unit) int { return cmp.Compare(a.Object, b.Object) }
	same := func(a, b kbuild.Unit) bool { return a.Object == b.Object }
	slices.SortFunc(s.units, byObject)
	s.units = slices.CompactFunc(s.units, same)
	slices.SortFunc(s.candidates, byObject)
	s.candidates = slices.CompactFunc(s.candidates, same)
	s.candidates = slices.DeleteFunc(s.candidates, func(u kbuild.Unit) bool {
		_, found := slices.BinarySearchFunc(s.units, u, byObject)
		return found
	})
	return s, errors.Join(errs...)
}

func (s *selection) file(t *kbuild.Tree, f touched, cache string) error {
	base, ext := path.Base(f.path), path.Ext(f.path)
	switch {
	case isOutside(t, f.path):
		s.noEffect = append(s.noEffect, f.path)
		return nil
	case base == "Makefile" || base == "Kbuild" || strings.HasPrefix(base, "Kconfig") || ext == ".lds" || strings.HasPrefix(base, "Makefile."):
		s.problem(BuildFile, f.path, "a change of the build configuration is not followed",
			"leave this file out of the patch if it only concerns files that this kernel does not build; otherwise put the new code into an existing file")
		return nil
	case ext == ".h":
		return s.readers(t, f, cache)
	case ext == ".c" || ext == ".S" || ext == ".rs" || ext == ".inc":
		return s.source(t, f, cache)
	}
	// Anything else reaches the kernel only through a file that includes it.
	return s.readers(t, f, cache)
}

func isOutside(t *kbuild.Tree, file string) bool {
	for _, dir := range buildTools {
		if strings.HasPrefix(file, dir) {
			return false
		}
	}
	for _, dir := range outside {
		if strings.HasPrefix(file, dir) {
			return true
		}
	}
	if rest, ok := strings.CutPrefix(file, "arch/"); ok {
		arch, _, _ := strings.Cut(rest, "/")
		return arch != t.SrcArch && arch != "Kconfig"
	}
	ext := path.Ext(file)
	return ext == ".rst" || ext == ".txt" || ext == ".yaml" || !strings.Contains(file, "/") && ext == "" && path.Base(file) != "Makefile" && path.Base(file) != "Kbuild" && path.Base(file) != "Kconfig"
}

func (s *selection) source(t *kbuild.Tree, f touched, cache string) error {
	if f.isNew {
		s.problem(NewSource, f.path, "new source files are not supported yet", "put the new functions into an existing file")
		return nil
	}
	units, err := t.UnitsOf(f.path)
	if errors.Is(err, kbuild.ErrNoUnit) {
		return s.readers(t, f, cache) // included by another file, or not built at all
	}
	if err != nil {
		return err
	}
	if f.content == nil {
		s.problem(RemovedSource, f.path, "removing a source file that the running kernel was built from is not supported", "change its functions instead")
		return nil
	}
	for _, u := range units {
		if why := u.Special(); why != "" {
			s.problem(NotKernelCode, f.path, why, "this part of the kernel cannot be livepatched; leave the file out of the patch, or reboot into a fixed kernel")
			continue
		}
		s.units = append(s.units, u)
	}
	return nil
}

func (s *selection) readers(t *kbuild.Tree, f touched, cache string) error {
	if why := kbuild.SpecialPath(f.path); why != "" {
		s.problem(NotKernelCode, f.path, why, "this part of the kernel cannot be livepatched; leave the file out of the patch, or reboot into a fixed kernel")
		return nil
	}
	if f.isNew {
		return nil // whoever includes it is touched as well
	}
	units, err := t.Readers(f.path, cache)
	if err != nil {
		return err
	}
	if len(units) == 0 {
		s.noEffect = append(s.noEffect, f.path)
	}
	s.candidates = append(s.candidates, units...)
	return nil
}

func (s *selection) problem(kind elfdiff.ProblemKind, file, detail, hint string) {
	s.problems = append(s.problems, elfdiff.Problem{Kind: kind, At: elfobj.Pos{Object: file}, Detail: detail, Hint: hint})
}

// seesChange tells whether a unit's preprocessed text changes with the patch,
// apart from line markers.
func (b *builder) seesChange(ctx context.Context, u kbuild.Unit) (bool, error) {
	job := kbuild.CompileJob{Unit: u, Out: b.tempName(u, "i"), Extra: []string{"-P"}}
	orig, err := b.kernel.Tree.Preprocess(ctx, job)
	if err != nil {
		return false, err
	}
	job.Shadow, job.Out = b.shadow, b.tempName(u, "patched.i")
	patched, err := b.kernel.Tree.Preprocess(ctx, job)
	if err != nil {
		return false, err
	}
	return !bytes.Equal(orig.Text, patched.Text), nil
}

// objectName is the livepatch object of a unit.
func objectName(u kbuild.Unit) string { return cmp.Or(u.Module(), codegen.VMLinux) }

func severalModules(u kbuild.Unit) error {
	if len(u.Modules) > 1 {
		return fmt.Errorf("%s is linked into several modules (%s): not supported yet", u.Source, strings.Join(u.Modules, ", "))
	}
	return nil
}
