package target

import (
	"debug/elf"
	"errors"
	"fmt"
	"strings"

	"github.com/klpc/klpc/elfobj"
)

// Module is a kernel module as the kernel sees it. It is immutable.
type Module struct {
	Name   string // as the kernel calls it, such as "nf_tables"
	Object *elfobj.Object
	Info   []Tag // .modinfo in file order

	byName map[string][]*elfobj.Symbol // defined ones, in symbol table order
}

// Tag is one entry of .modinfo.
type Tag struct{ Key, Value string }

// ReadModule reads a .ko, compressed or not. A signature after the ELF file is
// ignored.
func ReadModule(data []byte) (*Module, error) {
	data, err := Decompress(data)
	if err != nil {
		return nil, fmt.Errorf("read module: %w", err)
	}
	o, err := elfobj.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("read module: %w", err)
	}
	if o.Type != elf.ET_REL {
		return nil, fmt.Errorf("read module: type %v is not a module", o.Type)
	}
	info := o.Section(".modinfo")
	if info == nil {
		return nil, errors.New("read module: no .modinfo section: not a kernel module")
	}
	m := &Module{Object: o, Info: modinfo(info.Data), byName: map[string][]*elfobj.Symbol{}}
	names := m.Modinfo("name")
	if len(names) != 1 || names[0] == "" {
		return nil, fmt.Errorf("read module: .modinfo holds %s instead of 1", plural(len(names), "name"))
	}
	m.Name = names[0]
	for _, s := range o.Symbols {
		if !s.Undefined() {
			m.byName[s.Name] = append(m.byName[s.Name], s)
		}
	}
	return m, nil
}

// modinfo splits the section: strings "key=value", each closed by NUL, with more
// NULs between them for alignment.
func modinfo(data []byte) []Tag {
	var tags []Tag
	for _, entry := range strings.Split(string(data), "\x00") {
		if entry == "" {
			continue
		}
		key, value, _ := strings.Cut(entry, "=")
		tags = append(tags, Tag{Key: key, Value: value})
	}
	return tags
}

// Modinfo returns all values of a key, such as "depends", "vermagic" or
// "import_ns", in file order.
func (m *Module) Modinfo(key string) []string {
	var values []string
	for _, t := range m.Info {
		if t.Key == key {
			values = append(values, t.Value)
		}
	}
	return values
}

// Named returns the symbols of that name that the module defines, in the order
// of its symbol table.
func (m *Module) Named(name string) []*elfobj.Symbol { return m.byName[name] }

// Sympos returns what a livepatch must say to mean the symbol: its 1-based
// position among those of the same name, 0 if the name is unique.
//
// The livepatch core walks the module's symbol table in file order and counts
// every entry of that name but undefined ones (module_kallsyms_on_each_symbol;
// the same in Linux 6.1 and 6.12). Which table that is depends on when:
//   - while the module is coming, with the livepatch there first, it is the
//     whole .symtab, with symbols of init sections, of sections that are not
//     loaded, and absolute ones (STT_FILE);
//   - once the module's init has run, it is what add_kallsyms kept: named
//     symbols of sections that are loaded and not init (is_core_symbol, with
//     CONFIG_KALLSYMS_ALL, which CONFIG_LIVEPATCH requires).
//
// The result is ambiguous if the two give different positions, or if the second
// lacks the symbol. A position of 1 also fits a name that is unique in one of
// the tables, so it is not ambiguous where both have the symbol first. For a
// symbol that the module does not define, Sympos returns 0, true.
//
// It is assumed that CONFIG_MODULE_UNLOAD is on: without it, .exit sections
// count as init.
func (m *Module) Sympos(sym *elfobj.Symbol) (pos int, ambiguous bool) {
	var coming, live int // position in either table
	var comingLen, liveLen int
	for _, s := range m.byName[sym.Name] {
		comingLen++
		kept := keptAfterInit(s)
		if kept {
			liveLen++
		}
		if s == sym {
			coming = comingLen
			if kept {
				live = liveLen
			}
		}
	}
	switch {
	case coming == 0:
		return 0, true
	case coming != live:
		return coming, true
	case comingLen == 1:
		return 0, false
	}
	return coming, false
}

// keptAfterInit is the kernel's is_core_symbol, with CONFIG_KALLSYMS_ALL. The
// loader takes SHF_ALLOC from .modinfo and __versions (rewrite_section_headers
// in kernel/module/main.c), and from per-CPU data, whose symbols it keeps
// nevertheless.
func keptAfterInit(s *elfobj.Symbol) bool {
	if s.Section == nil || s.Name == "" {
		return false
	}
	name := s.Section.Name
	switch name {
	case ".modinfo", "__versions":
		return false
	case ".data..percpu":
		return true
	}
	return s.Section.Flags&elf.SHF_ALLOC != 0 && !strings.HasPrefix(name, ".init")
}
