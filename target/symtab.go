package target

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// maxNameLen is KSYM_NAME_LEN, with the closing NUL, in bytes.
// Source: include/linux/kallsyms.h, Linux 6.1 and later.
const maxNameLen = 512

// Symtab is the kernel's symbol table as kallsyms has it: ascending address
// order, which is the order that sympos counts in. The livepatch core resolves
// a name in vmlinux by walking kallsyms (Linux 6.1) or the same-named entries by
// ascending address (6.2 and later), which is the same order. It is immutable.
type Symtab struct {
	names []string
	addrs []uint64
	kinds []byte
	// first holds the lowest index of each name, next the following one with
	// the same name, or -1.
	first    map[string]int32
	next     []int32
	hasAddrs bool

	moduleNames []string // in order of appearance
	modules     map[string][]Symbol
}

// Symbol is one entry.
type Symbol struct {
	Name string
	// Addr is the link address; in a dump of /proc/kallsyms it is where the
	// symbol is at run time, moved by KASLR.
	Addr uint64
	// Kind is the letter of nm(1) as kallsyms prints it. On x86 before Linux
	// 6.15 per-CPU data is 'A' and Addr its distance from the per-CPU base.
	Kind byte
}

// newSymtab makes the indices over columns that it takes over.
func newSymtab(names []string, addrs []uint64, kinds []byte) *Symtab {
	t := &Symtab{
		names: names, addrs: addrs, kinds: kinds,
		first: make(map[string]int32, len(names)),
		next:  make([]int32, len(names)),
	}
	for i := len(names) - 1; i >= 0; i-- {
		t.next[i] = -1
		if j, ok := t.first[names[i]]; ok {
			t.next[i] = j
		}
		t.first[names[i]] = int32(i)
	}
	t.hasAddrs = slices.ContainsFunc(addrs, func(a uint64) bool { return a != 0 })
	return t
}

// Len returns the number of entries, those of modules not counted.
func (t *Symtab) Len() int { return len(t.names) }

// At returns entry i, 0-based.
func (t *Symtab) At(i int) Symbol {
	return Symbol{Name: t.names[i], Addr: t.addrs[i], Kind: t.kinds[i]}
}

// HasAddrs tells whether addresses are known. A dump that was read without the
// right to see them (kernel.kptr_restrict) has the order, but only zeros.
func (t *Symtab) HasAddrs() bool { return t.hasAddrs }

// Named returns the indices of all entries of that name, ascending.
func (t *Symtab) Named(name string) []int {
	i, ok := t.first[name]
	if !ok {
		return nil
	}
	var all []int
	for ; i >= 0; i = t.next[i] {
		all = append(all, int(i))
	}
	return all
}

// Sympos returns what a livepatch must say to mean entry i: its 1-based
// position among the entries of the same name, 0 if the name is unique.
func (t *Symtab) Sympos(i int) int {
	j := t.first[t.names[i]]
	if t.next[j] < 0 {
		return 0
	}
	pos := 1
	for ; int(j) != i; j = t.next[j] {
		pos++
	}
	return pos
}

// AtAddr returns the indices of the entries at exactly that address, ascending;
// none if addresses are unknown.
func (t *Symtab) AtAddr(addr uint64) []int {
	if !t.hasAddrs {
		return nil
	}
	i, _ := slices.BinarySearch(t.addrs, addr)
	var all []int
	for ; i < len(t.addrs) && t.addrs[i] == addr; i++ {
		all = append(all, i)
	}
	return all
}

// Containing returns the entry that an address belongs to as kallsyms sees it:
// the first of those at the highest address that is not above addr. It is false
// if there is none, if no entry follows that would bound it, or if addresses
// are unknown. kallsyms holds no sizes, so the padding after a function belongs
// to it.
func (t *Symtab) Containing(addr uint64) (index int, ok bool) {
	if !t.hasAddrs {
		return 0, false
	}
	above := sort.Search(len(t.addrs), func(i int) bool { return t.addrs[i] > addr })
	if above == 0 || above == len(t.addrs) {
		return 0, false
	}
	i, _ := slices.BinarySearch(t.addrs, t.addrs[above-1])
	return i, true
}

// Modules returns the names of the modules that a /proc/kallsyms dump lists, in
// order of appearance. Names such as bpf and __builtin__ftrace are not modules
// but appear like them.
func (t *Symtab) Modules() []string { return slices.Clone(t.moduleNames) }

// Module returns a loaded module's symbols in the order of its own symbol
// table, as far as the kernel kept it.
func (t *Symtab) Module(name string) []Symbol { return slices.Clone(t.modules[name]) }

// unique returns the address of a name that must exist once.
func (t *Symtab) unique(name string) (uint64, error) {
	i, ok := t.first[name]
	switch {
	case !ok:
		return 0, fmt.Errorf("symbol %s not found", name)
	case t.next[i] >= 0:
		return 0, fmt.Errorf("symbol %s exists %s", name, plural(len(t.Named(name)), "time"))
	}
	return t.addrs[i], nil
}

// ReadSystemMap reads a System.map, that is nm output in ascending address
// order. Entries that kallsyms leaves out by their kind (absolute and
// undefined ones) are left out here; others that it leaves out by name, such as
// its own tables, do no harm, because all entries of such a name are left out.
func ReadSystemMap(r io.Reader) (*Symtab, error) {
	t, err := readLines(r, func(l line) (bool, error) {
		if l.module != "" {
			return false, errors.New("a module's symbol: this is a dump of /proc/kallsyms, not a System.map")
		}
		// scripts/mksysmap and is_ignored_symbol in scripts/kallsyms.c.
		return !strings.ContainsRune("aAnNuUw", rune(l.kind)), nil
	})
	if err != nil {
		return nil, fmt.Errorf("read System.map: %w", err)
	}
	if !t.hasAddrs {
		return nil, errors.New("read System.map: all addresses are zero")
	}
	return t, nil
}

// ReadKallsymsDump reads the text of /proc/kallsyms. Lines of modules, which
// end in [name], are kept apart. A dump whose addresses are all zero is
// accepted: see HasAddrs.
func ReadKallsymsDump(r io.Reader) (*Symtab, error) {
	modules := map[string][]Symbol{}
	var order []string
	t, err := readLines(r, func(l line) (bool, error) {
		if l.module == "" {
			if len(order) > 0 {
				return false, errors.New("a kernel symbol after those of modules")
			}
			return true, nil
		}
		if _, ok := modules[l.module]; !ok {
			order = append(order, l.module)
		}
		modules[l.module] = append(modules[l.module], Symbol{Name: l.name, Addr: l.addr, Kind: l.kind})
		return false, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read kallsyms dump: %w", err)
	}
	t.moduleNames, t.modules = order, modules
	return t, nil
}

// line is one line of either text.
type line struct {
	addr   uint64
	kind   byte
	name   string
	module string // without brackets
}

// readLines reads all lines and makes a table of those that keep wants.
func readLines(r io.Reader, keep func(line) (bool, error)) (*Symtab, error) {
	var names []string
	var addrs []uint64
	var kinds []byte
	scanner := bufio.NewScanner(r)
	n := 0
	for scanner.Scan() {
		n++
		l, err := parseLine(scanner.Text())
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		wanted, err := keep(l)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if !wanted {
			continue
		}
		if len(addrs) > 0 && l.addr < addrs[len(addrs)-1] {
			return nil, fmt.Errorf("line %d: address %#x of %s is below the one before: the order is lost", n, l.addr, l.name)
		}
		names, addrs, kinds = append(names, l.name), append(addrs, l.addr), append(kinds, l.kind)
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("line %d: %w", n+1, err)
	}
	t := newSymtab(names, addrs, kinds)
	return t, t.complete()
}

// complete refuses a table that lacks the kernel's first or last symbols: in
// one that was cut, positions would be counted wrong.
func (t *Symtab) complete() error {
	var errs []error
	for _, name := range []string{"_text", "_end"} {
		if _, ok := t.first[name]; !ok {
			errs = append(errs, fmt.Errorf("no symbol %s: not the whole table of a kernel", name))
		}
	}
	return errors.Join(errs...)
}

// parseLine takes "address kind name", then maybe "\t[module]".
func parseLine(text string) (line, error) {
	if strings.Contains(text, "The real System.map is in") {
		return line{}, errors.New("this is Debian's placeholder, it holds no symbols; use the vmlinuz")
	}
	var l line
	addr, rest, _ := strings.Cut(text, " ")
	kind, name, _ := strings.Cut(rest, " ")
	var err error
	if l.addr, err = strconv.ParseUint(addr, 16, 64); err != nil || len(kind) != 1 || !validKind(kind[0]) {
		return line{}, fmt.Errorf("not of the form \"address kind name\": %q", clip(text))
	}
	l.kind = kind[0]
	if i := strings.LastIndexByte(name, '\t'); i >= 0 {
		module := name[i+1:]
		if !strings.HasPrefix(module, "[") || !strings.HasSuffix(module, "]") || len(module) < 3 {
			return line{}, fmt.Errorf("not a module name in brackets: %q", clip(module))
		}
		l.module, name = module[1:len(module)-1], name[:i]
	}
	if !validName([]byte(name)) {
		return line{}, fmt.Errorf("not a symbol name: %q", clip(name))
	}
	l.name = name
	return l, nil
}

// validName tells whether kallsyms could hold the name: printable ASCII without
// blanks, of at least one byte.
func validName(name []byte) bool {
	if len(name) == 0 || len(name) >= maxNameLen {
		return false
	}
	for _, c := range name {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

// validKind tells whether nm prints such a letter.
func validKind(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '?'
}

// clip shortens foreign text for a message.
func clip(s string) string {
	const most = 60
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
