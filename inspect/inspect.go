// Package inspect reads a finished livepatch module and describes it in a
// canonical form: equal modules give equal descriptions, in equal order,
// without offsets that a recompile would move.
//
// It does not decide whether a kernel would accept the module: names and
// positions are not looked up anywhere. Sources: include/linux/livepatch.h and
// kernel/livepatch/core.c of Linux 6.1 to 7.x,
// Documentation/livepatch/module-elf-format.rst.
package inspect

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/klpc/klpc/internal/arch"
	"github.com/klpc/klpc/modsource"
	"github.com/klpc/klpc/target"
)

// vmlinux is what the kernel itself is called among patched objects.
const vmlinux = "vmlinux"

// Tables is where the module has its struct klp_patch from.
type Tables string

// The kinds of tables.
const (
	// Static tables are data of the module, so that they can be read.
	Static Tables = "static"
	// AtRunTime tables are built by the module's own code, as kpatch and
	// klp-build do: no static struct klp_patch is in the reach of the function
	// that calls klp_enable_patch.
	AtRunTime Tables = "built at run time"
	// NoTables is said of a module that never calls klp_enable_patch.
	NoTables Tables = "none"
)

// Module is the description of a livepatch module. Lists are never nil; those
// by object have vmlinux first, then objects by name.
type Module struct {
	Name   string `json:"name"` // as the kernel calls it, from modinfo
	Tables Tables `json:"tables"`
	// Replace tells whether the module replaces all other livepatches; nil if
	// the tables are not static.
	Replace *bool `json:"replace"`
	// Signature is what the module says of its signature; nil: it is not signed.
	Signature *target.Signature `json:"signature"`
	// Patches are the names of the patches that the module brings along, in
	// order; nil if it brings none.
	Patches     []string       `json:"patches,omitempty"`
	States      []State        `json:"states"` // by ID
	Objects     []Object       `json:"objects"`
	Relocations []RelocSection `json:"relocations"`
	Modinfo     []Tag          `json:"modinfo"` // by key, then in file order
	// Problems are what the kernel would refuse or silently not do, as far as
	// the module alone shows it, sorted.
	Problems []string `json:"problems"`
}

// State is one struct klp_state.
type State struct {
	ID      uint64 `json:"id"`
	Version uint32 `json:"version"`
}

// Object is one struct klp_object: a patched module, or "vmlinux".
type Object struct {
	Name      string     `json:"name"`
	Callbacks []Callback `json:"callbacks"` // in the order of struct klp_callbacks
	Functions []Function `json:"functions"` // by name, then sympos
}

// Callback is one function that the livepatch core calls around patching.
type Callback struct {
	Kind string `json:"kind"` // pre_patch, post_patch, pre_unpatch, post_unpatch
	Code
}

// Function is one struct klp_func.
type Function struct {
	Name   string `json:"name"`
	Sympos uint64 `json:"sympos"` // 1-based; 0 says that the name is unique
	New    Code   `json:"new"`
}

// Code is a function of the livepatch module.
type Code struct {
	Symbol  string `json:"symbol"`
	Section string `json:"section"`
	Size    uint64 `json:"size"` // bytes
}

// RelocSection is one section of relocations that the livepatch core applies.
type RelocSection struct {
	Section string        `json:"section"` // .klp.rela.OBJECT.TARGET
	Object  string        `json:"object"`  // with which object it is applied
	Target  string        `json:"target"`  // the section that is relocated
	Count   int           `json:"count"`   // relocations, those with problems too
	Symbols []RelocSymbol `json:"symbols"` // by object, name, sympos
}

// RelocSymbol is one symbol that the livepatch core resolves.
type RelocSymbol struct {
	Object string      `json:"object"`
	Name   string      `json:"name"`
	Sympos uint64      `json:"sympos"` // 1-based; 0 says that the name is unique
	Types  []TypeCount `json:"types"`  // by type
}

// TypeCount tells how many relocations of one type there are.
type TypeCount struct {
	Type  string `json:"type"` // R_X86_64_PC32 and the like
	Count int    `json:"count"`
}

// Tag is one entry of .modinfo.
type Tag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Read describes a livepatch module, compressed or not. It fails if the file is
// no livepatch module, or if it has tables that cannot be read with certainty.
func Read(data []byte) (*Module, error) {
	file, err := target.ReadModule(data)
	if err != nil {
		return nil, err
	}
	if len(file.Modinfo("livepatch")) == 0 {
		return nil, fmt.Errorf("%s is a module, but not a livepatch module: it has no livepatch= in .modinfo", file.Name)
	}
	machine, ok := arch.ByMachine(file.Object.Machine)
	if !ok {
		return nil, errors.New("unsupported machine")
	}
	r := &reader{
		view:   newView(file.Object),
		relocs: machine.Relocs,
		module: &Module{
			Name: file.Name, Tables: NoTables,
			States: []State{}, Objects: []Object{}, Relocations: []RelocSection{}, Modinfo: modinfo(file.Info), Problems: []string{},
		},
	}
	if err := r.tables(); err != nil {
		return nil, err
	}
	if err := r.signature(data); err != nil {
		return nil, err
	}
	r.patchNames()
	r.relocations()
	r.symbols()
	slices.Sort(r.module.Problems)
	r.module.Problems = slices.Compact(r.module.Problems)
	return r.module, nil
}

// reader is a Module being read.
type reader struct {
	view
	relocs map[uint32]arch.RelocType
	module *Module
}

// signature describes the signature behind the ELF file. One that cannot be read
// is a problem: a kernel that wants signatures refuses the module.
func (r *reader) signature(data []byte) error {
	data, err := target.Decompress(data)
	if err != nil {
		return err
	}
	r.module.Signature, err = target.ReadSignature(data)
	if err != nil {
		r.problem("%v", err)
	}
	return nil
}

// patchNames lists the patches that klpc has put into the module.
func (r *reader) patchNames() {
	s := r.object.Section(modsource.Section)
	if s == nil {
		return
	}
	source, err := modsource.Decode(s.Data)
	if err != nil {
		r.problem("%v", err)
	}
	for _, p := range source.Patches {
		r.module.Patches = append(r.module.Patches, p.Name)
	}
}

func (r *reader) problem(format string, args ...any) {
	r.module.Problems = append(r.module.Problems, fmt.Sprintf(format, args...))
}

func modinfo(info []target.Tag) []Tag {
	tags := []Tag{}
	for _, t := range info {
		tags = append(tags, Tag(t))
	}
	slices.SortStableFunc(tags, func(a, b Tag) int { return cmp.Compare(a.Key, b.Key) })
	return tags
}

// compareObjects orders the names of objects: vmlinux first.
func compareObjects(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == vmlinux:
		return -1
	case b == vmlinux:
		return 1
	}
	return cmp.Compare(a, b)
}
