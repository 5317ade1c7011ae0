package livetest

// Which modules a guest needs, and in which order they are loaded: a module's
// .modinfo names the modules it depends on (depends=) and those that it asks
// modprobe to try first (softdep=pre:). A depth-first walk that puts a module
// behind everything it depends on gives the order; the guest has no modprobe.

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/internal/modname"
	"github.com/klpc/klpc/target"
)

// maxModuleName is MODULE_NAME_LEN of include/linux/moduleparam.h without its
// terminating NUL, in bytes.
const maxModuleName = 64 - 8 - 1

var moduleNamePattern = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

func checkModuleName(name string) error {
	if len(name) > maxModuleName || !moduleNamePattern.MatchString(name) {
		return fmt.Errorf("%q is not a module name", name)
	}
	return nil
}

// moduleSuffixes are the file names of modules, the uncompressed one first.
var moduleSuffixes = []string{".ko", ".ko.xz", ".ko.zst", ".ko.gz"}

// FindModuleIn looks through a folder once, lib/modules/RELEASE or a build tree, and
// returns a function that finds a module's file by the module's name. '-' and
// '_' are equal in names. Of several files for one name the uncompressed one is
// taken, then the first by path.
func FindModuleIn(dir string) (func(name string) (path string, ok bool), error) {
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("look for modules: %w", err)
	}
	type found struct {
		path string
		rank int // index in moduleSuffixes
	}
	files := map[string]found{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".git" {
				return filepath.SkipDir
			}
			return nil
		}
		for rank, suffix := range moduleSuffixes {
			base, ok := strings.CutSuffix(d.Name(), suffix)
			if !ok {
				continue
			}
			name := modname.Canonical(base)
			if old, twice := files[name]; !twice || rank < old.rank {
				files[name] = found{path, rank}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for modules: %w", err)
	}
	return func(name string) (string, bool) {
		f, ok := files[modname.Canonical(name)]
		return f.path, ok
	}, nil
}

// module is a module's file, ready for the guest.
type module struct {
	name    string // as the kernel spells it
	data    []byte // uncompressed
	depends []string
	soft    []string // softdep=pre:, loaded first if they can be found
}

// readModule reads a module's file, compressed or not.
func readModule(path string) (*module, error) {
	packed, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	data, err := target.Decompress(packed)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	m, err := parseModule(data)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return m, nil
}

func parseModule(data []byte) (*module, error) {
	obj, err := elfobj.Parse(data)
	if err != nil {
		return nil, err
	}
	info := obj.Section(".modinfo")
	if obj.Type != elf.ET_REL || info == nil {
		return nil, errors.New("not a kernel module: no .modinfo section")
	}
	m := &module{data: data}
	for entry := range bytes.SplitSeq(info.Data, []byte{0}) {
		key, value, _ := strings.Cut(string(entry), "=")
		switch key {
		case "name":
			m.name = modname.Canonical(value)
		case "depends":
			m.depends = strings.FieldsFunc(value, func(r rune) bool { return r == ',' })
		case "softdep":
			m.soft = append(m.soft, softBefore(value)...)
		}
	}
	if err := checkModuleName(m.name); err != nil {
		return nil, fmt.Errorf(".modinfo: %w", err)
	}
	return m, nil
}

// softBefore returns the modules of "pre: a b post: c" that come before.
func softBefore(softdep string) []string {
	var before []string
	pre := false
	for _, word := range strings.Fields(softdep) {
		switch word {
		case "pre:":
			pre = true
		case "post:":
			pre = false
		default:
			if pre {
				before = append(before, word)
			}
		}
	}
	return before
}

// modules holds all modules that a guest needs.
type modules struct {
	find   func(name string) (path string, ok bool)
	byName map[string]*module
}

// newModules reads the modules that are given by path; find, which may be nil,
// finds the others.
func newModules(paths []string, find func(string) (string, bool)) (*modules, error) {
	all := &modules{find: find, byName: map[string]*module{}}
	var errs []error
	for _, p := range paths {
		m, err := readModule(p)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if all.byName[m.name] != nil {
			errs = append(errs, fmt.Errorf("%s: a module %s was given already", p, m.name))
		}
		all.byName[m.name] = m
	}
	return all, errors.Join(errs...)
}

// get returns a module by name, or nil if there is none.
func (all *modules) get(name string) (*module, error) {
	name = modname.Canonical(name)
	if m := all.byName[name]; m != nil {
		return m, nil
	}
	if all.find == nil {
		return nil, nil
	}
	path, ok := all.find(name)
	if !ok {
		return nil, nil
	}
	m, err := readModule(path)
	if err != nil {
		return nil, err
	}
	if m.name != name {
		return nil, fmt.Errorf("read %s: it holds the module %s, not %s", path, m.name, name)
	}
	all.byName[name] = m
	return m, nil
}

// order returns the named module behind all that it depends on.
func (all *modules) order(name string) ([]string, error) {
	var order []string
	if err := all.visit(name, nil, &order); err != nil {
		return nil, err
	}
	return order, nil
}

// visit appends a module and before it what it needs. above is the way from the
// first module to this one.
func (all *modules) visit(name string, above []string, order *[]string) error {
	name = modname.Canonical(name)
	if slices.Contains(*order, name) {
		return nil
	}
	if slices.Contains(above, name) {
		return fmt.Errorf("modules depend on each other: %s", strings.Join(append(above, name), ", "))
	}
	m, err := all.get(name)
	if err != nil {
		return err
	}
	if m == nil {
		if len(above) > 0 {
			return fmt.Errorf("module %s not found, which %s needs", name, above[len(above)-1])
		}
		return fmt.Errorf("module %s not found (leave it out if it is built into the kernel)", name)
	}
	above = append(slices.Clone(above), name)
	for _, soft := range m.soft {
		if dep, err := all.get(soft); err != nil || dep == nil {
			continue // built in, or an alias: modprobe would go on, too
		}
		if slices.Contains(above, modname.Canonical(soft)) {
			continue
		}
		if err := all.visit(soft, above, order); err != nil {
			return err
		}
	}
	for _, dep := range m.depends {
		if err := all.visit(dep, above, order); err != nil {
			return err
		}
	}
	*order = append(*order, name)
	return nil
}

// loaded returns all modules that were read, sorted by name.
func (all *modules) loaded() []*module {
	var list []*module
	for _, m := range all.byName {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b *module) int { return strings.Compare(a.name, b.name) })
	return list
}
