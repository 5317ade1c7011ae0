package kbuild

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klpc/klpc/internal/run"
)

// What Kbuild would compile in a folder if its makefiles were other ones.
//
// Kbuild itself is asked: `make -n` of that folder in a copy of the tree that
// is empty but for symbolic links to the sources, the other makefiles and the
// running kernel's configuration. Three things keep that cheap and keep it
// from writing anywhere else:
//
//   - "-o prepare" and "-o include/config/auto.conf" declare the preparation
//     done and the configuration up to date. (make -n does remake makefiles
//     that are included: with a Kconfig file newer than auto.conf it would run
//     syncconfig in earnest.) The configuration is that of the kernel that
//     runs, and at most gains symbols that this does not know.
//   - The build directory of the copy is its own: real directories, copies of
//     the configuration, empty files where Kbuild looks whether a tool or a
//     generated header is there. Kbuild makes directories in it while it reads
//     makefiles (scripts/Makefile.build, obj-dirs), and nothing else.
//   - Each makefile that is asked gets three lines at its end that cut the
//     folders off that nobody has asked for.

// DryRunJob asks what Kbuild would compile in some folders.
type DryRunJob struct {
	Work string // a folder to be made, outside the tree
	// Files are the makefiles and sources that differ from the tree's
	// (tree-relative); nil: removed.
	Files map[string]*[]byte
	// Folders are asked without those below them, unless the same makefile
	// governs them; "" would be the whole tree and is not possible.
	Folders []string
	// Deep folders are asked with all below them.
	Deep []string
	// Config are lines that the running kernel's configuration lacks:
	// "CONFIG_NEW=y".
	Config []string
}

// DryRunResult is Kbuild's answer.
type DryRunResult struct {
	Units []Unit // by object; their commands are for the original tree
	// NoRule are the files that Kbuild needs and knows no way to make, such
	// as an object that a makefile names and that has no source; sorted.
	NoRule []string
	Wall   time.Duration
	CPU    time.Duration
}

// MakefileError is a makefile that make does not understand.
type MakefileError struct {
	First  string // make's first complaint, with tree-relative names
	Output string
}

func (e *MakefileError) Error() string { return "read the patched makefiles: " + e.First }

// DryRun asks Kbuild. Neither Source nor Build is written to.
func (t *Tree) DryRun(ctx context.Context, job DryRunJob) (DryRunResult, error) {
	v, err := t.newMakeView(job)
	if err != nil {
		return DryRunResult{}, fmt.Errorf("dry run: %w", err)
	}
	var goals []string
	for _, f := range slices.Concat(job.Folders, job.Deep) {
		goals = append(goals, f+"/")
	}
	slices.Sort(goals)
	args := []string{"make", "-n", "-k", "-C", v.build, "--no-print-directory",
		"-o", "prepare", "-o", "include/config/auto.conf", "-o", "include/config/auto.conf.cmd"}
	args = slices.Concat(args, t.toolArgs(), t.MakeArgs, slices.Compact(goals))
	r, runErr := run.Do(ctx, run.Cmd{Dir: v.build, Args: args, Env: t.env(job.Work)})
	var failed *run.Error
	if runErr != nil && !errors.As(runErr, &failed) {
		return DryRunResult{}, fmt.Errorf("dry run: %w", runErr)
	}
	said := string(v.original(r.Stderr))
	noRule, fault := readComplaints(said)
	if fault != "" {
		return DryRunResult{}, &MakefileError{First: t.relativeNames(fault, nil), Output: t.relativeNames(said, nil)}
	}
	for i, name := range noRule {
		noRule[i], _ = t.roots().locate(name)
	}
	units, err := t.readDryRun(v.original(r.Stdout))
	if err != nil {
		return DryRunResult{}, err
	}
	return DryRunResult{Units: units, NoRule: noRule, Wall: r.Wall, CPU: r.User + r.Sys}, nil
}

// readDryRun reads the units of a dry run that may be without any.
func (t *Tree) readDryRun(output []byte) ([]Unit, error) {
	p := dryRun{roots: t.roots(), numbers: map[string]uint32{}, seen: map[[2]uint32]bool{}, db: &DB{}}
	sc := bufio.NewScanner(bytes.NewReader(output))
	sc.Buffer(make([]byte, 1<<20), 64<<20)
	for n := 1; sc.Scan(); n++ {
		if err := p.line(sc.Bytes()); err != nil {
			p.errs = append(p.errs, fmt.Errorf("dry run:%d: %w", n, err))
		}
	}
	if err := errors.Join(append(p.errs, sc.Err())...); err != nil {
		return nil, err
	}
	units := p.db.Units()
	slices.SortFunc(units, byObject)
	return units, nil
}

func byObject(a, b Unit) int { return cmp.Compare(a.Object, b.Object) }

// readComplaints sorts what make says on standard error: files that it cannot
// make, which -k passes over, and the first other fault.
func readComplaints(said string) (noRule []string, fault string) {
	for line := range strings.Lines(said) {
		_, text, found := strings.Cut(strings.TrimSpace(line), "*** ")
		switch {
		case !found, strings.HasPrefix(text, "["): // "[scripts/Makefile.build:478: fs] Error 2"
		case strings.HasPrefix(text, "No rule to make target '"):
			file, _, _ := strings.Cut(strings.TrimPrefix(text, "No rule to make target '"), "'")
			noRule = append(noRule, path.Clean(file))
		case fault == "":
			fault = strings.TrimSpace(line)
		}
	}
	slices.Sort(noRule)
	return slices.Compact(noRule), fault
}

// makeView is the copy of the tree that make reads.
type makeView struct {
	source, build   string // absolute, without symbolic links
	source0, build0 string // the originals
}

// original gives the names in make's output back their original form.
func (v makeView) original(text []byte) []byte {
	if _, inside := below(v.source, v.build); !inside && v.build != v.source {
		text = bytes.ReplaceAll(text, []byte(v.build), []byte(v.build0))
	}
	return bytes.ReplaceAll(text, []byte(v.source), []byte(v.source0))
}

// newMakeView makes the copy. Its build directory lies towards its source as
// in the tree, since Kbuild names the source by ".", ".." or its full path.
func (t *Tree) newMakeView(job DryRunJob) (makeView, error) {
	files, err := t.prunedMakefiles(job)
	if err != nil {
		return makeView{}, err
	}
	s, err := NewShadow(t, filepath.Join(job.Work, "linux"), files)
	if err != nil {
		return makeView{}, err
	}
	v := makeView{source: s.dir, build: s.dir, source0: t.Source, build0: t.Build}
	if t.Build == t.Source {
		if err := v.forgetBuilt(s, job.Deep); err != nil {
			return makeView{}, err
		}
		return v, v.configure(t, job.Config)
	}
	if rel, inside := below(t.Source, t.Build); inside {
		v.build = filepath.Join(s.dir, rel)
		if err := os.RemoveAll(v.build); err != nil { // links and real folders
			return makeView{}, err
		}
	} else {
		v.build = filepath.Join(filepath.Dir(s.dir), "build")
	}
	for _, dir := range []string{"scripts", "tools", "include/generated", "arch/" + t.SrcArch + "/include/generated"} {
		if err := v.placeholders(dir); err != nil {
			return makeView{}, err
		}
	}
	if err := os.WriteFile(filepath.Join(v.build, "Makefile"), []byte("include "+v.source+"/Makefile\n"), 0o644); err != nil {
		return makeView{}, err
	}
	return v, v.configure(t, job.Config)
}

// prunedMakefiles returns the job's files with the makefiles of its folders
// added, cut off from folders that are not asked for.
func (t *Tree) prunedMakefiles(job DryRunJob) (map[string]*[]byte, error) {
	files := map[string]*[]byte{}
	for name, content := range job.Files {
		files[name] = content
	}
	for _, dir := range job.pruned() {
		name, text, err := t.makefileOf(dir, job.Files)
		if errors.Is(err, errNoMakefile) && !slices.Contains(job.Folders, dir) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var keep []string
		for _, f := range slices.Concat(job.Folders, job.Deep) {
			if rest, ok := strings.CutPrefix(f, dir+"/"); ok {
				first, _, _ := strings.Cut(rest, "/")
				keep = append(keep, first+"/", rest+"/")
			}
		}
		slices.Sort(keep)
		pruned := append(slices.Clip(text), "\n"...)
		for _, list := range []string{"obj-y", "obj-m", "subdir-y", "subdir-m"} {
			pruned = fmt.Appendf(pruned, "%[1]s := $(filter-out %%/,$(%[1]s)) $(filter %[2]s,$(%[1]s))\n", list, strings.Join(slices.Compact(keep), " "))
		}
		files[name] = &pruned
	}
	return files, nil
}

// pruned are the folders whose makefiles are cut off: those that are asked, and
// those that lie between two of them.
func (job DryRunJob) pruned() []string {
	asked := slices.Concat(job.Folders, job.Deep)
	within := func(dir string, list []string) bool {
		return slices.ContainsFunc(list, func(f string) bool { return dir == f || strings.HasPrefix(dir, f+"/") })
	}
	var out []string
	for _, f := range asked {
		for dir := f; dir != "."; dir = path.Dir(dir) {
			if within(dir, job.Folders) && !within(dir, job.Deep) {
				out = append(out, dir)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

var errNoMakefile = errors.New("no Kbuild and no Makefile")

// makefileOf returns the makefile that Kbuild reads in a folder, as the patch
// leaves it; Kbuild goes before Makefile.
func (t *Tree) makefileOf(dir string, files map[string]*[]byte) (string, []byte, error) {
	for _, base := range makefileNames {
		name := path.Join(dir, base)
		if content, ok := files[name]; ok {
			if content != nil {
				return name, *content, nil
			}
			continue
		}
		text, err := os.ReadFile(filepath.Join(t.Source, name))
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return name, text, err
		}
	}
	return "", nil, fmt.Errorf("%s: %w", dir, errNoMakefile)
}

var makefileNames = []string{"Kbuild", "Makefile"}

// GoverningFolder is the folder whose makefile lists the objects of a source,
// usually its own (tree-relative; "" if there is none but the root's). Files
// are those that differ from the tree's.
func (t *Tree) GoverningFolder(file string, files map[string]*[]byte) string {
	dir := path.Dir(file)
	for ; dir != "."; dir = path.Dir(dir) {
		if _, _, err := t.makefileOf(dir, files); err == nil {
			return dir
		}
	}
	return ""
}

// UnitsIn returns the units that the tree's makefile of a folder governs,
// sorted by object; with deep, those of all folders below as well.
func (t *Tree) UnitsIn(dir string, scope Scope) ([]Unit, error) {
	var units []Unit
	if t.db != nil {
		for _, u := range t.db.Units() {
			if strings.HasPrefix(u.Object, dir+"/") && t.inScope(dir, u.Object, scope) {
				units = append(units, u)
			}
		}
		slices.SortFunc(units, byObject)
		return units, nil
	}
	var objects []string
	root := filepath.Join(t.Build, dir)
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && p == root {
			return nil // nothing of it was built
		}
		if err != nil {
			return err
		}
		rel, _ := below(t.Build, p)
		switch object, isCmd := strings.CutSuffix(e.Name(), ".o.cmd"); {
		case e.IsDir() && p != root && !t.inScope(dir, rel+"/x.o", scope):
			return filepath.SkipDir
		case !e.IsDir() && isCmd && strings.HasPrefix(object, ".") && !strings.HasSuffix(object, ".mod"): // modpost's
			objects = append(objects, path.Join(path.Dir(rel), object[1:]+".o"))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the objects of %s: %w", dir, err)
	}
	units, err = t.unitsOfObjects(objects, dir)
	if errors.Is(err, ErrNoUnit) {
		return nil, nil
	}
	slices.SortFunc(units, byObject)
	return units, err
}

// Scope is how far below a folder to look.
type Scope uint8

// The scopes.
const (
	OneMakefile Scope = iota // the folder, and those below without a makefile of their own
	Everything               // the folder and all below
)

func (t *Tree) inScope(dir, object string, scope Scope) bool {
	return scope == Everything || t.GoverningFolder(object, nil) == dir
}

// configure gives the view the configuration of the tree, and a time at which
// it is newer than anything it is made from.
func (v makeView) configure(t *Tree, more []string) error {
	dir := filepath.Join(v.build, "include/config")
	// A link to the folder of an in-place build.
	if st, err := os.Lstat(filepath.Join(v.build, "include")); err == nil && !st.IsDir() {
		return errors.New("internal error: the view's include folder is a link")
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range []string{".config", "include/config/kernel.release", "include/config/auto.conf.cmd", "include/config/auto.conf"} {
		text, err := os.ReadFile(filepath.Join(t.Build, name))
		if err != nil {
			return err
		}
		if base := filepath.Base(name); base == ".config" || base == "auto.conf" {
			for _, line := range more {
				text = append(text, line+"\n"...)
			}
		}
		to := filepath.Join(v.build, name)
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		if err := os.WriteFile(to, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// placeholders makes an empty file for each file of a folder of the build.
// Plugins of the compiler are linked: it loads them to try options.
func (v makeView) placeholders(dir string) error {
	from, to := filepath.Join(v.build0, dir), filepath.Join(v.build, dir)
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		switch {
		case e.IsDir():
			err = v.placeholders(name)
		case strings.HasSuffix(name, ".cmd"): // would be read
		case strings.HasSuffix(name, ".so"):
			err = os.Symlink(filepath.Join(v.build0, name), filepath.Join(v.build, name))
		default:
			err = os.WriteFile(filepath.Join(v.build, name), nil, 0o755)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// forgetBuilt hides from make that objects of an in-place tree are up to date:
// it removes the links to .cmd files. The folders in question are made real
// for that; those of the job's makefiles are already.
func (v makeView) forgetBuilt(s *Shadow, deep []string) error {
	if err := s.makeReal("include"); err != nil {
		return err
	}
	for _, dir := range deep {
		err := filepath.WalkDir(filepath.Join(s.source, dir), func(p string, e fs.DirEntry, err error) error {
			if err != nil || !e.IsDir() {
				return err
			}
			rel, _ := below(s.source, p)
			return s.makeReal(rel)
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return filepath.WalkDir(s.dir, func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.Type()&fs.ModeSymlink != 0 && strings.HasPrefix(e.Name(), ".") && strings.HasSuffix(e.Name(), ".cmd") {
			err = os.Remove(p)
		}
		return err
	})
}
