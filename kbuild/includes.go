package kbuild

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Which units of a tree that has not been built may read a file.
//
// Vertices are files; edges are #include lines, whatever #if surrounds them.
// A quoted name is looked up beside the including file, then any name in the
// directories that all units search first, and if it is in none of those, in
// all directories that any unit searches. A unit may read a file if the file
// can be reached from its source or from a file that its command includes
// (-include). The answer is too large, never too small: the compiler decides
// later.
//
// #include MACRO has no name to follow. A #define whose value looks like an
// include name counts as an include of the file that defines it. What remains
// is define_trace.h, which reads trace headers again that the unit has already
// included by name.

// IncludeGraph is that graph. It does not change once it is made.
type IncludeGraph struct {
	source   string
	numbers  map[string]int // absolute clean name → vertex
	includes [][]int        // by vertex: the vertices it includes
	units    []Unit
	starts   [][]int // by unit
}

// Includes builds the include graph of a tree with a compile database, for
// its ordinary kernel units (Unit.Special).
func (t *Tree) Includes() (*IncludeGraph, error) {
	if t.db == nil {
		return nil, errors.New("include scan: a built tree has its dependencies recorded; use Deps")
	}
	b := newGraphBuilder(t)
	b.addUnits(t, func(u Unit) bool { return u.Kind() == C && u.Special() == "" })
	return b.build()
}

func newGraphBuilder(t *Tree) *graphBuilder {
	return &graphBuilder{
		graph: &IncludeGraph{source: t.Source, numbers: map[string]int{}},
		files: map[string]map[string]bool{}, found: map[string][]int{},
	}
}

// build follows the includes from the units that were added.
func (b *graphBuilder) build() (*IncludeGraph, error) {
	for done := 0; done < len(b.names); {
		texts, err := readIncludes(b.names[done:])
		if err != nil {
			return nil, fmt.Errorf("include scan: %w", err)
		}
		for i, list := range texts {
			b.graph.includes = append(b.graph.includes, b.resolve(b.names[done+i], list))
		}
		done += len(texts)
	}
	return b.graph, nil
}

// Readers returns the units that may read any of the files (tree-relative), in
// the database's order.
func (g *IncludeGraph) Readers(files ...string) []Unit {
	reaches := make([]bool, len(g.includes))
	var todo []int
	for _, f := range files {
		if n, ok := g.numbers[filepath.Join(g.source, f)]; ok {
			reaches[n] = true
			todo = append(todo, n)
		}
	}
	includers := g.reverse()
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, by := range includers[n] {
			if !reaches[by] {
				reaches[by] = true
				todo = append(todo, by)
			}
		}
	}
	var out []Unit
	for i, u := range g.units {
		for _, n := range g.starts[i] {
			if reaches[n] {
				out = append(out, u)
				break
			}
		}
	}
	return out
}

func (g *IncludeGraph) reverse() [][]int {
	back := make([][]int, len(g.includes))
	for n, list := range g.includes {
		for _, m := range list {
			back[m] = append(back[m], n)
		}
	}
	return back
}

type graphBuilder struct {
	graph  *IncludeGraph
	names  []string                   // by vertex
	common []string                   // directories that all units search first
	others []string                   // all other directories that any unit searches
	files  map[string]map[string]bool // directory → names of its files
	found  map[string][]int           // include name → vertices, from common or others
}

func (b *graphBuilder) vertex(name string) int {
	n, ok := b.graph.numbers[name]
	if !ok {
		n = len(b.names)
		b.graph.numbers[name] = n
		b.names = append(b.names, name)
	}
	return n
}

// addUnits takes the starts and the search lists from the database.
func (b *graphBuilder) addUnits(t *Tree, wanted func(Unit) bool) {
	var lists [][]string
	for _, u := range t.db.Units() {
		if !wanted(u) {
			continue
		}
		dirs, first := includeArgs(u.Args, t.Build)
		root := t.Source
		if u.Generated {
			root = t.Build
		}
		start := []int{b.vertex(filepath.Join(root, u.Source))}
		for _, f := range first {
			start = append(start, b.vertex(f))
		}
		b.graph.units = append(b.graph.units, u)
		b.graph.starts = append(b.graph.starts, start)
		lists = append(lists, dirs)
	}
	b.common = commonPrefix(lists)
	seen := map[string]bool{}
	for _, dirs := range lists {
		for _, d := range dirs[len(b.common):] {
			if !seen[d] {
				seen[d] = true
				b.others = append(b.others, d)
			}
		}
	}
}

func commonPrefix(lists [][]string) []string {
	if len(lists) == 0 {
		return nil
	}
	prefix := lists[0]
	for _, l := range lists[1:] {
		n := 0
		for n < len(prefix) && n < len(l) && prefix[n] == l[n] {
			n++
		}
		prefix = prefix[:n]
	}
	return prefix
}

// resolve returns the vertices of a file's includes.
func (b *graphBuilder) resolve(file string, list []include) []int {
	var out []int
	for _, inc := range list {
		if inc.quoted {
			if name := filepath.Join(filepath.Dir(file), inc.name); b.isFile(name) {
				out = append(out, b.vertex(name))
				continue
			}
		}
		out = append(out, b.search(inc.name)...)
	}
	return out
}

func (b *graphBuilder) search(name string) []int {
	if got, ok := b.found[name]; ok {
		return got
	}
	var got []int
	for _, d := range b.common {
		if p := filepath.Join(d, name); b.isFile(p) {
			got = []int{b.vertex(p)}
			break
		}
	}
	if got == nil {
		for _, d := range b.others {
			if p := filepath.Join(d, name); b.isFile(p) {
				got = append(got, b.vertex(p))
			}
		}
	}
	b.found[name] = got
	return got
}

// isFile asks the listing of the file's directory, which is read once.
func (b *graphBuilder) isFile(name string) bool {
	dir, base := filepath.Split(name)
	names, ok := b.files[dir]
	if !ok {
		names = map[string]bool{}
		entries, err := os.ReadDir(dir)
		if err == nil {
			for _, e := range entries {
				if !e.IsDir() {
					names[e.Name()] = true
				}
			}
		}
		b.files[dir] = names
	}
	return names[base]
}

// includeArgs returns the search list of a command in its order, and the files
// that it includes by option. Names are absolute and clean.
func includeArgs(args []string, cwd string) (dirs, first []string) {
	abs := func(p string) string {
		if !filepath.IsAbs(p) {
			p = cwd + "/" + p
		}
		return filepath.Clean(p)
	}
	for i := 0; i < len(args); i++ {
		for _, opt := range []string{"-include", "-imacros", "-isystem", "-iquote", "-idirafter", "-I"} {
			v, ok := strings.CutPrefix(args[i], opt)
			if !ok {
				continue
			}
			if v == "" && i+1 < len(args) {
				i++
				v = args[i]
			}
			if opt == "-include" || opt == "-imacros" {
				first = append(first, abs(v))
			} else {
				dirs = append(dirs, abs(v))
			}
			break
		}
	}
	return dirs, first
}

// include is one include name in a text.
type include struct {
	name   string
	quoted bool
}

// readIncludes reads the include names of files, in parallel. A file that does
// not exist has none: a source that the build would generate.
func readIncludes(files []string) ([][]include, error) {
	out := make([][]include, len(files))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	const batch = 64
	for at := 0; at < len(files); at += batch {
		g.Go(func() error {
			for i := at; i < min(at+batch, len(files)); i++ {
				text, err := os.ReadFile(files[i])
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
				out[i] = parseIncludes(text)
			}
			return nil
		})
	}
	return out, g.Wait()
}

// parseIncludes finds the include directives of a C text, and the defines
// whose value is an include name.
func parseIncludes(text []byte) []include {
	var out []include
	for len(text) > 0 {
		i := bytes.IndexByte(text, '#')
		if i < 0 {
			break
		}
		lineStart := bytes.LastIndexByte(text[:i], '\n') + 1
		before := text[lineStart:i]
		end := bytes.IndexByte(text[i:], '\n')
		if end < 0 {
			end = len(text) - i
		}
		line := text[i+1 : i+end]
		text = text[i+end:]
		if len(bytes.TrimLeft(before, " \t")) > 0 {
			continue
		}
		if inc, ok := parseDirective(bytes.TrimLeft(line, " \t")); ok {
			out = append(out, inc)
		}
	}
	return out
}

func parseDirective(line []byte) (include, bool) {
	value, isInclude := bytes.CutPrefix(line, []byte("include"))
	if isInclude {
		value = bytes.TrimPrefix(value, []byte("_next"))
	} else {
		define, ok := bytes.CutPrefix(line, []byte("define"))
		if !ok {
			return include{}, false
		}
		define = bytes.TrimLeft(define, " \t")
		i := bytes.IndexAny(define, " \t")
		if i < 0 {
			return include{}, false
		}
		value = define[i:]
	}
	value = bytes.TrimSpace(value)
	if len(value) < 2 || value[0] != '"' && value[0] != '<' {
		return include{}, false
	}
	closer := byte('"')
	if value[0] == '<' {
		closer = '>'
	}
	n := bytes.IndexByte(value[1:], closer)
	if n <= 0 {
		return include{}, false
	}
	name := string(value[1 : 1+n])
	if !isInclude && !strings.HasSuffix(name, ".h") && !strings.HasSuffix(name, ".c") {
		return include{}, false
	}
	return include{name: name, quoted: value[0] == '"'}, true
}
