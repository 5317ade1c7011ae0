package pipeline

// What changed makefiles, new sources and removed sources mean.
//
// Kbuild is asked what it would compile with the patch, in the folders whose
// makefiles can have to do with it and with the configuration of the running
// kernel. The answer is compared with the commands that the kernel was built
// by: an object that is new is compiled and compared with an empty one; one
// whose command changes is compiled by both; one that is gone stays in the
// running kernel, which is said. If anything but new and removed files differs,
// Kbuild is also asked what it would compile without the patch: only what
// differs from that is the patch's doing, and if that differs from what was
// recorded, the tree was built by another make command than klpc knows.

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/klpc/klpc/diff"
	"github.com/klpc/klpc/kbuild"
)

// wholeKernel are the makefiles that all of the kernel is built by.
var wholeKernel = regexp.MustCompile(`^(Makefile|Kbuild|arch/x86/Makefile[^/]*|scripts/(Makefile|Kbuild)[^/]*)$`)

// makefile is a changed, new or removed makefile.
func (s *selector) makefile(f *touched) {
	switch why := kbuild.SpecialPath(f.path); {
	case wholeKernel.MatchString(f.path):
		s.problem(BuildFile, f.path, "this makefile governs the whole kernel: every object would have to be compiled and compared",
			"leave this file out of the patch; give a single file other options in its folder's makefile (CFLAGS_file.o)")
	case why != "":
		s.refuse(f, why)
	case s.sameRules(f):
		s.noEffect = append(s.noEffect, f.path)
	default:
		s.asks = append(s.asks, f)
	}
}

// sameRules tells whether only comments and blank lines of a makefile differ.
func (s *selector) sameRules(f *touched) bool {
	old, err := s.original(f.path)
	return err == nil && f.content != nil && !f.isNew && slices.Equal(makeLines(old), makeLines(*f.content))
}

// newSymbol is the head of a Kconfig entry.
var newSymbol = regexp.MustCompile(`(?m)^(?:menu)?config[ \t]+(\w+)[ \t]*$`)

// kconfig finds the symbols that a patch adds. Others keep the value that they
// have in the running kernel, whatever the patch does to their defaults.
func (s *selector) kconfig(f *touched) error {
	s.noEffect = append(s.noEffect, f.path)
	s.kconfigs = append(s.kconfigs, f)
	old, err := s.original(f.path)
	if err != nil || f.content == nil {
		return err
	}
	known := map[string]bool{}
	for _, m := range newSymbol.FindAllSubmatch(old, -1) {
		known[string(m[1])] = true
	}
	for _, m := range newSymbol.FindAllSubmatch(*f.content, -1) {
		if name := string(m[1]); !known[name] && s.tree.Config.Get("CONFIG_"+name) == "" {
			known[name] = true
			s.symbols = append(s.symbols, newConfig{f.path, name})
		}
	}
	return nil
}

// newConfig is a symbol that a patch adds.
type newConfig struct{ file, name string }

// configure gives new symbols the values that `make olddefconfig` would: a
// patch that brings its own option means the kernel that is built with it.
func (s *selector) configure(ctx context.Context) error {
	if len(s.symbols) == 0 {
		return nil
	}
	files := map[string]*[]byte{}
	for _, f := range s.kconfigs {
		files[f.path] = f.content
	}
	config, err := s.tree.Configure(ctx, filepath.Join(s.work, "kconfig"), files)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, n := range s.symbols {
		if err != nil {
			s.note("%s: CONFIG_%s is new; its default cannot be told, so it is off, and code that depends on it is left out: %v", n.file, n.name, err)
			continue
		}
		switch value := config.Get("CONFIG_" + n.name); value {
		case "", "n":
			s.note("%s: CONFIG_%s is new, and off by its default in the running kernel's configuration: code that depends on it is left out", n.file, n.name)
		default:
			s.note("%s: CONFIG_%s is new, and %s by its default in the running kernel's configuration: what the patch changes is compiled with it", n.file, n.name, value)
			s.turnOn(n.name, value)
		}
	}
	return nil
}

// turnOn sets a new symbol for makefiles and for the compiler, as auto.conf and
// autoconf.h would (scripts/kconfig/confdata.c).
func (s *selector) turnOn(name, value string) {
	define, line := "-DCONFIG_"+name+"="+value, "CONFIG_"+name+"="+value
	switch {
	case value == "y":
		define = "-DCONFIG_" + name + "=1"
	case value == "m":
		define = "-DCONFIG_" + name + "_MODULE=1"
	case !numericValue.MatchString(value):
		define, line = "-DCONFIG_"+name+"=\""+value+"\"", "CONFIG_"+name+"=\""+value+"\""
	}
	s.defines = append(s.defines, define)
	s.config = append(s.config, line)
}

// numericValue is the value of an int or hex symbol.
var numericValue = regexp.MustCompile(`^(-?[0-9]+|0[xX][0-9a-fA-F]+)$`)

// original reads a file of the tree; nil if it does not exist.
func (s *selector) original(file string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(s.tree.Source, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

// question is what Kbuild is asked.
type question struct {
	overlay map[string]*[]byte // what the patch makes of the tree, as far as makefiles see it
	folders []string
	deep    []string
	folder  map[string]string // of each asked file; "" if no makefile governs it
}

// unitSet are units by object.
type unitSet map[string]kbuild.Unit

// askKbuild settles the files whose meaning the makefiles decide.
func (s *selector) askKbuild(ctx context.Context) error {
	if len(s.asks) == 0 {
		return nil
	}
	q, err := s.question()
	if err != nil {
		return err
	}
	before := unitSet{}
	for _, f := range q.folders {
		if err := s.recorded(before, f, kbuild.OneMakefile); err != nil {
			return err
		}
	}
	for _, f := range q.deep {
		if err := s.recorded(before, f, kbuild.Everything); err != nil {
			return err
		}
	}
	after, noRule := unitSet{}, []string(nil)
	if len(q.folders)+len(q.deep) > 0 {
		if after, noRule, err = s.dryRun(ctx, "patched", q, q.overlay); err != nil {
			return err
		}
	}
	c, err := s.compareSets(ctx, q, before, after)
	if err != nil {
		return err
	}
	return s.settle(q, c, before, noRule)
}

// question finds the folders that have to be asked.
func (s *selector) question() (question, error) {
	q := question{overlay: map[string]*[]byte{}, folder: map[string]string{}}
	for _, f := range s.asks {
		q.overlay[f.path] = f.content
	}
	for _, f := range s.asks {
		dir := s.tree.GoverningFolder(f.path, q.overlay)
		q.folder[f.path] = dir
		if dir == "" {
			continue
		}
		q.folders = append(q.folders, dir)
		if !isMakefile(f.path) {
			continue
		}
		old, err := s.original(f.path)
		if err != nil {
			return q, err
		}
		var now []byte
		if f.content != nil {
			now = *f.content
		}
		below, all := reachesBelow(old, now)
		for _, sub := range below {
			if sub = path.Join(dir, sub); s.hasMakefile(sub, q.overlay) {
				q.deep = append(q.deep, sub)
			}
		}
		if base := path.Base(f.path); all || base != "Makefile" && base != "Kbuild" {
			q.deep = append(q.deep, dir)
		}
	}
	slices.Sort(q.folders)
	slices.Sort(q.deep)
	q.folders, q.deep = slices.Compact(q.folders), slices.Compact(q.deep)
	return q, nil
}

func (s *selector) hasMakefile(dir string, overlay map[string]*[]byte) bool {
	return s.tree.GoverningFolder(path.Join(dir, "x.c"), overlay) == dir
}

var (
	// inherited is what a makefile says to those of the folders below.
	inherited   = regexp.MustCompile(`\b(subdir-\w+|export|include)\b`)
	conditional = regexp.MustCompile(`^\s*(ifn?eq|ifn?def|else|endif)\b`)
	subfolder   = regexp.MustCompile(`[\w./-]+/(\s|$)`)
)

// reachesBelow finds, from the lines that differ between two makefiles, the
// folders that one of them names, and whether all folders below may see the
// difference.
func reachesBelow(old, now []byte) (folders []string, all bool) {
	a, b := makeLines(old), makeLines(now)
	lines := slices.Concat(lacking(a, b), lacking(b, a))
	if slices.ContainsFunc(lines, conditional.MatchString) {
		lines = slices.Concat(a, b)
	}
	for _, l := range lines {
		for _, name := range subfolder.FindAllString(l, -1) {
			folders = append(folders, path.Clean(strings.TrimSpace(name)))
		}
		all = all || inherited.MatchString(l)
	}
	return folders, all
}

// makeLines are the lines of a makefile, continued ones joined, without
// comments.
func makeLines(text []byte) []string {
	var out []string
	for _, l := range strings.Split(strings.ReplaceAll(string(text), "\\\n", " "), "\n") {
		l, _, _ = strings.Cut(l, "#")
		if strings.TrimSpace(l) != "" {
			out = append(out, l)
		}
	}
	return out
}

// lacking returns the lines that other does not have.
func lacking(lines, other []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return slices.Contains(other, l) })
}

func (s *selector) recorded(set unitSet, dir string, scope kbuild.Scope) error {
	units, err := s.tree.UnitsIn(dir, scope)
	for _, u := range units {
		set[u.Object] = u
	}
	return err
}

// dryRun asks Kbuild once.
func (s *selector) dryRun(ctx context.Context, name string, q question, files map[string]*[]byte) (unitSet, []string, error) {
	exists := func(dir string) bool { return s.hasMakefile(dir, files) }
	job := kbuild.DryRunJob{Work: filepath.Join(s.work, name), Files: files}
	if files != nil {
		job.Config = s.config
	}
	for _, f := range q.folders {
		if exists(f) {
			job.Folders = append(job.Folders, f)
		}
	}
	for _, f := range q.deep {
		if exists(f) {
			job.Deep = append(job.Deep, f)
		}
	}
	res, err := s.tree.DryRun(ctx, job)
	if err != nil {
		return nil, nil, err
	}
	set := unitSet{}
	for _, u := range res.Units {
		set[u.Object] = u
	}
	return set, res.NoRule, nil
}

// changes are the differences that the patch makes to what is compiled; the
// lists are sorted.
type changes struct {
	fresh    []kbuild.Unit // by the patched makefiles only
	gone     []kbuild.Unit // by the running kernel's makefiles only
	commands []kbuild.Unit // by both, with another command: the patched one
	// foreign says, if not empty, that the tree was built with other
	// options than make gives now.
	foreign string
}

func (s *selector) compareSets(ctx context.Context, q question, before, after unitSet) (changes, error) {
	var c changes
	expected := true
	for _, object := range slices.Sorted(maps.Keys(before)) {
		was := before[object]
		now, ok := after[object]
		switch {
		case !ok:
			c.gone = append(c.gone, was)
			expected = expected && q.removes(was.Source)
		case !slices.Equal(was.Args, now.Args):
			c.commands = append(c.commands, now)
			expected = false
		}
	}
	for _, object := range slices.Sorted(maps.Keys(after)) {
		if _, ok := before[object]; !ok {
			c.fresh = append(c.fresh, after[object])
			expected = expected && q.overlay[after[object].Source] != nil
		}
	}
	if expected {
		return c, nil
	}
	base, _, err := s.dryRun(ctx, "unpatched", q, nil)
	if err != nil {
		return c, err
	}
	c.subtract(before, base)
	return c, nil
}

func (q question) removes(source string) bool {
	content, asked := q.overlay[source]
	return asked && content == nil
}

// subtract leaves what is the patch's doing, given what Kbuild compiles
// without it.
func (c *changes) subtract(before, base unitSet) {
	c.gone = slices.DeleteFunc(c.gone, func(u kbuild.Unit) bool { _, ok := base[u.Object]; return !ok })
	c.fresh = slices.DeleteFunc(c.fresh, func(u kbuild.Unit) bool { _, ok := base[u.Object]; return ok })
	c.commands = slices.DeleteFunc(c.commands, func(u kbuild.Unit) bool {
		was, now := before[u.Object], base[u.Object]
		if c.foreign == "" && !slices.Equal(was.Args, now.Args) {
			c.foreign = fmt.Sprintf("%s was built with %s, and make would build it with %s",
				u.Source, cmp.Or(oddWord(was.Args, now.Args), "other options"), cmp.Or(oddWord(now.Args, was.Args), "other options"))
		}
		return slices.Equal(now.Args, u.Args)
	})
}

// oddWord is the first word of a that b does not have.
func oddWord(a, b []string) string {
	for _, w := range a {
		if !slices.Contains(b, w) {
			return w
		}
	}
	return ""
}

// settle turns the differences into units, notes and problems.
func (s *selector) settle(q question, c changes, before unitSet, noRule []string) error {
	if c.foreign != "" && len(c.fresh)+len(c.commands) > 0 {
		for _, f := range s.asks {
			s.problem(BuildFile, f.path, "the options of new and changed objects cannot be told: "+c.foreign,
				"klpc runs make in its own environment: build the kernel with the options in its configuration and makefiles, without variables such as KCFLAGS")
		}
		return nil
	}
	matter := map[string]bool{} // sources that are compiled or refused
	for _, u := range c.commands {
		matter[u.Source] = true
		s.newCommand(before[u.Object], u)
	}
	var fresh []kbuild.Unit
	for _, u := range c.fresh {
		if ok, refused := s.newUnit(&u, before); ok {
			fresh = append(fresh, u)
		} else if !refused {
			continue
		}
		matter[u.Source] = true
	}
	for _, u := range c.gone {
		if q.removes(u.Source) && stillListed(u, noRule) {
			continue // restOfAsked says so
		}
		if n := s.renamed(q, u, fresh); n >= 0 {
			matter[u.Source] = true
			s.units = append(s.units, u)
			s.patched[u.Object] = fresh[n]
			fresh = slices.Delete(fresh, n, n+1)
			continue
		}
		s.forget(u)
	}
	for _, u := range fresh {
		s.units = append(s.units, u)
		s.fresh[u.Object] = true
	}
	return s.restOfAsked(q, c, before, noRule, matter)
}

// newCommand is a unit that the patched makefiles compile in another way.
func (s *selector) newCommand(was, now kbuild.Unit) {
	switch {
	case was.Special() != "":
		s.problem(NotKernelCode, was.Source, "a makefile changes how it is compiled, and it cannot be livepatched: "+was.Special(),
			"leave that part of the makefile out of the patch, or reboot into a fixed kernel")
	case !slices.Equal(was.Modules, now.Modules):
		s.problem(BuildFile, was.Source, fmt.Sprintf("the makefile moves it from %s to %s", strings.Join(objectNames(was), ", "), strings.Join(objectNames(now), ", ")),
			"leave that part of the makefile out of the patch")
	default:
		s.units = append(s.units, was)
		s.patched[was.Object] = now
		s.note("%s: the makefile changes its options: %s", was.Source, optionChange(was.Args, now.Args))
	}
}

// optionChange names the first options that differ.
func optionChange(was, now []string) string {
	added, dropped := oddWord(now, was), oddWord(was, now)
	switch {
	case added == "" && dropped == "":
		return "another order"
	case dropped == "":
		return "adds " + added
	case added == "":
		return "drops " + dropped
	}
	return "adds " + added + ", drops " + dropped
}

// newUnit judges a unit that the running kernel was built without. Of several
// modules, u keeps those that the running kernel has.
func (s *selector) newUnit(u *kbuild.Unit, before unitSet) (ok, refused bool) {
	if why := u.Special(); why != "" {
		s.refuse(&touched{path: u.Source}, why)
		return false, true
	}
	if len(u.Modules) == 0 {
		return true, false
	}
	has := map[string]bool{}
	for _, b := range before {
		for _, m := range b.Modules {
			has[m] = true
		}
	}
	all := u.Modules
	u.Modules = slices.DeleteFunc(slices.Clone(all), func(m string) bool { return !has[m] })
	if len(u.Modules) == 0 {
		s.note("%s becomes part of the module %s, which this kernel does not have: build that as an ordinary module", u.Source, strings.Join(all, ", "))
		return false, false
	}
	return true, false
}

// renamed finds the new unit that goes on with the text of a removed source: a
// renamed file. Two files are one if they share at least half of their lines.
func (s *selector) renamed(q question, gone kbuild.Unit, fresh []kbuild.Unit) int {
	if !q.removes(gone.Source) {
		return -1
	}
	old, err := s.original(gone.Source)
	if err != nil {
		return -1
	}
	best, most := -1, 0
	for i, u := range fresh {
		now := q.overlay[u.Source]
		if now == nil || !slices.Equal(u.Modules, gone.Modules) {
			continue
		}
		if n := sharedLines(old, *now); n > most && 2*n >= max(countLines(old), countLines(*now)) {
			best, most = i, n
		}
	}
	if best < 0 {
		return -1
	}
	for i := range s.files {
		if f := &s.files[i]; f.path == fresh[best].Source {
			a := diff.Between(old, *f.content)
			f.edits, f.pinned = a.Edits, a.Pin()
		}
	}
	return best
}

func countLines(text []byte) int {
	n := 0
	for line := range bytes.Lines(text) {
		if len(bytes.TrimSpace(line)) > 0 {
			n++
		}
	}
	return n
}

// sharedLines counts the lines that two texts have in common, blank ones apart.
func sharedLines(a, b []byte) int {
	lines := map[string]int{}
	for line := range bytes.Lines(a) {
		lines[string(line)]++
	}
	n := 0
	for line := range bytes.Lines(b) {
		if len(bytes.TrimSpace(line)) > 0 && lines[string(line)] > 0 {
			lines[string(line)]--
			n++
		}
	}
	return n
}

// forget drops a unit that the patched makefiles do not compile.
func (s *selector) forget(u kbuild.Unit) {
	gone := func(v kbuild.Unit) bool { return v.Object == u.Object }
	s.units = slices.DeleteFunc(s.units, gone)
	s.candidates = slices.DeleteFunc(s.candidates, gone)
	s.note("%s is no longer compiled; what it holds stays in the running kernel", u.Source)
}

// restOfAsked lists the files whose question came to nothing.
func (s *selector) restOfAsked(q question, c changes, before unitSet, noRule []string, matter map[string]bool) error {
	below := func(dir string) bool {
		for source := range matter {
			if strings.HasPrefix(source, dir+"/") {
				return true
			}
		}
		return false
	}
	for _, f := range s.asks {
		switch {
		case matter[f.path]:
		case isMakefile(f.path):
			if !below(path.Dir(f.path)) {
				s.noEffect = append(s.noEffect, f.path)
			}
		case f.isNew:
			s.notBuilt(q, f, c)
		default:
			if err := s.removedSource(f, before, noRule); err != nil {
				return err
			}
		}
	}
	return nil
}

// notBuilt is a new source that Kbuild does not compile into this kernel.
func (s *selector) notBuilt(q question, f *touched, c changes) {
	include := includeOf(f.path)
	for _, other := range s.files {
		if other.content != nil && other.path != f.path && include.Match(*other.content) {
			return // compiled with that one
		}
	}
	s.noEffect = append(s.noEffect, f.path)
	if slices.ContainsFunc(c.fresh, func(u kbuild.Unit) bool { return u.Source == f.path }) {
		return // of a new module
	}
	object := strings.TrimSuffix(path.Base(f.path), path.Ext(f.path)) + ".o"
	name, symbol := regexp.MustCompile(`(^|[\s/])`+regexp.QuoteMeta(object)+`(\s|$)`), regexp.MustCompile(`\bCONFIG_\w+`)
	for _, base := range []string{"Kbuild", "Makefile"} {
		text, err := s.patchedText(path.Join(q.folder[f.path], base), q)
		if err != nil {
			continue
		}
		for _, line := range makeLines(text) {
			if name.MatchString(line) {
				why := "in this configuration"
				if m := symbol.FindString(line); m != "" {
					why = "because " + m + " is off in the running kernel"
				}
				s.note("%s is not compiled %s", f.path, why)
				return
			}
		}
	}
	s.note("%s is not compiled: no makefile lists %s", f.path, object)
}

func (s *selector) patchedText(file string, q question) ([]byte, error) {
	if content, ok := q.overlay[file]; ok && content != nil {
		return *content, nil
	}
	return os.ReadFile(filepath.Join(s.tree.Source, file))
}

// stillListed tells whether make was asked for the object and found no source.
func stillListed(u kbuild.Unit, noRule []string) bool {
	return slices.Contains(noRule, u.Object) || slices.Contains(noRule, u.Source)
}

// removedSource is a removed source that is not known to be gone from the
// makefiles as well.
func (s *selector) removedSource(f *touched, before unitSet, noRule []string) error {
	units, err := s.tree.UnitsOf(f.path)
	if errors.Is(err, kbuild.ErrNoUnit) {
		return s.readers(f) // perhaps others include it
	}
	if err != nil {
		return err
	}
	for _, u := range units {
		if stillListed(u, noRule) {
			s.problem(RemovedSource, f.path, "the makefile of its folder still lists "+path.Base(u.Object)+", so the patched kernel could not be built",
				"remove the object from the makefile as well")
			return nil
		}
		if _, known := before[u.Object]; !known {
			s.forget(u)
		}
	}
	s.noEffect = append(s.noEffect, f.path)
	return nil
}
