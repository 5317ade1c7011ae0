package inspect

// A livepatch module hands klp_enable_patch a struct klp_patch, which points to
// an array of struct klp_object, which point to arrays of struct klp_func. Each
// array ends with an entry of zeros. The first fields of each structure are the
// same in all kernels, those behind them are the kernel's own and differ in
// size; so the size of an entry is taken from where the pointers of the second
// entry lie. An array with one entry can be read without it.
//
// The struct klp_patch is found by its first two pointers, to __this_module and
// to writable data, among what a function that calls klp_enable_patch refers
// to.

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/klpc/klpc/elfobj"
)

// Offsets of fields, in bytes. Source: include/linux/livepatch.h, the same from
// Linux 6.1 to 7.x on 64-bit machines.
const (
	patchObjs    = 8
	patchStates  = 16
	patchReplace = 24

	objectName      = 0
	objectFuncs     = 8
	objectCallbacks = 16
	objectShared    = 56 // bytes up to the first field of the kernel's own

	funcOldName   = 0
	funcNewFunc   = 8
	funcOldSympos = 16
	funcShared    = 24

	stateVersion = 8
	stateData    = 16
	stateSize    = 24 // has no fields of the kernel's own

	pointerSize = 8
)

// callbackKinds are the pointers of struct klp_callbacks, in order.
func callbackKinds() []string {
	return []string{"pre_patch", "post_patch", "pre_unpatch", "post_unpatch"}
}

// pointee is what a pointer in a table may point to.
type pointee uint8

const (
	toString pointee = iota // read-only data
	toTable                 // writable data
	toCode                  // a function, or an undefined symbol
)

// slot is a pointer in a table's entry.
type slot struct {
	off uint64 // bytes from the start of the entry
	to  pointee
}

// layout is one entry of a table, as far as kernels agree.
type layout struct {
	name   string
	shared uint64 // bytes
	key    uint64 // offset of the pointer that no entry is without
	slots  []slot
	number uint64 // offset of an 8-byte field that is no pointer; 0 if there is none
}

func objectLayout() layout {
	l := layout{name: "struct klp_object", shared: objectShared, key: objectFuncs, slots: []slot{{objectName, toString}, {objectFuncs, toTable}}}
	for i := range callbackKinds() {
		l.slots = append(l.slots, slot{objectCallbacks + uint64(i)*pointerSize, toCode})
	}
	return l
}

func funcLayout() layout {
	return layout{name: "struct klp_func", shared: funcShared, key: funcOldName,
		slots: []slot{{funcOldName, toString}, {funcNewFunc, toCode}}, number: funcOldSympos}
}

// table is an array of structures in the module's data.
type table struct {
	layout
	at     place
	symbol string
	size   uint64 // bytes
	count  int    // entries before the one of zeros
	stride uint64 // bytes; 0 if there are not two entries to tell it from
}

func (t *table) entry(i int) place { return t.at.plus(uint64(i) * t.stride) }

// tables finds and reads the struct klp_patch.
func (r *reader) tables() error {
	callers := r.callers("klp_enable_patch")
	if len(callers) == 0 {
		r.problem("the module does not call klp_enable_patch")
		return nil
	}
	patches := r.patches(callers)
	switch len(patches) {
	case 0:
		r.module.Tables = AtRunTime
		return nil
	case 1:
		r.module.Tables = Static
		return r.patch(patches[0])
	}
	return fmt.Errorf("%d structures look like the struct klp_patch: %v and %v", len(patches), r.where(patches[0]), r.where(patches[1]))
}

// callers returns the functions that refer to an undefined symbol, in symbol
// table order.
func (r *reader) callers(name string) []*elfobj.Symbol {
	var all []*elfobj.Symbol
	for _, s := range r.object.Symbols {
		if s.Type != elf.STT_FUNC || s.Section == nil {
			continue
		}
		at := place{s.Section, s.Value}
		if slices.ContainsFunc(r.relocsIn(at, s.Size), func(off uint64) bool {
			to := r.relocAt[at.plus(off)].Sym
			return to != nil && to.Undefined() && to.Name == name
		}) {
			all = append(all, s)
		}
	}
	return all
}

// patches returns what looks like a struct klp_patch among what the functions
// refer to.
func (r *reader) patches(functions []*elfobj.Symbol) []place {
	var all []place
	for _, f := range functions {
		at := place{f.Section, f.Value}
		for _, off := range r.relocsIn(at, f.Size) {
			rel := r.relocAt[at.plus(off)]
			bias := int64(0)
			if t := r.relocs[rel.Type]; t.PCRel {
				// An address is taken by lea, whose displacement ends it.
				bias = int64(t.Size)
			}
			if to, ok := resolve(rel, bias); ok && r.isPatch(to) && !slices.Contains(all, to) {
				all = append(all, to)
			}
		}
	}
	return all
}

func (r *reader) isPatch(p place) bool {
	mod, ok := r.relocAt[p]
	if !ok || mod.Sym == nil || mod.Sym.Name != "__this_module" || mod.Addend != 0 {
		return false
	}
	objs, ok := r.pointer(p.plus(patchObjs))
	return ok && points(toTable, objs)
}

// points tells whether a place is of a kind.
func points(to pointee, p place) bool {
	const data, code = elf.SHF_WRITE, elf.SHF_EXECINSTR
	switch flags := p.section.Flags & (elf.SHF_ALLOC | data | code); to {
	case toTable:
		return flags == elf.SHF_ALLOC|data
	case toString:
		return flags == elf.SHF_ALLOC
	default:
		return flags == elf.SHF_ALLOC|code
	}
}

// patch reads a struct klp_patch and what it points to.
func (r *reader) patch(p place) error {
	replace, ok := r.bytes(p.plus(patchReplace), 1)
	if !ok || replace[0] > 1 {
		return fmt.Errorf("%v: struct klp_patch has no flag replace that is 0 or 1", r.where(p))
	}
	yes := replace[0] == 1
	r.module.Replace = &yes
	if err := r.states(p.plus(patchStates)); err != nil {
		return err
	}
	at, _ := r.pointer(p.plus(patchObjs))
	objects, err := r.table(at, objectLayout())
	if err != nil {
		return err
	}
	r.checkEnd(objects, objects.stride)
	var funcs []table
	for i := range objects.count {
		o, t, err := r.readObject(objects.entry(i))
		if err != nil {
			return err
		}
		r.module.Objects = append(r.module.Objects, o)
		funcs = append(funcs, t)
	}
	slices.SortStableFunc(r.module.Objects, func(a, b Object) int { return compareObjects(a.Name, b.Name) })
	for i, o := range r.module.Objects[:max(len(r.module.Objects)-1, 0)] {
		if o.Name == r.module.Objects[i+1].Name {
			r.problem("object %s is listed twice", shown(o.Name))
		}
	}
	return r.checkStrides(funcs)
}

// checkStrides compares what the tables say about the size of a struct
// klp_func, and finds tables that have no end.
func (r *reader) checkStrides(funcs []table) error {
	var stride uint64
	for _, t := range funcs {
		if t.stride != 0 && stride != 0 && t.stride != stride {
			return fmt.Errorf("%s: entries have %d bytes, those of other tables %d", t.symbol, t.stride, stride)
		}
		stride = max(stride, t.stride)
	}
	for _, t := range funcs {
		r.checkEnd(t, stride)
	}
	return nil
}

// checkEnd checks that a table has an entry of zeros at its end. If no stride
// is known, the least one is taken.
func (r *reader) checkEnd(t table, stride uint64) {
	if t.size < uint64(t.count+1)*max(stride, t.shared) {
		r.problem("%s: the array of %s does not end with an entry of zeros", t.symbol, t.name)
	}
}

// table reads the outlines of an array.
func (r *reader) table(at place, l layout) (table, error) {
	symbol, ok := r.variable(at)
	if !ok {
		return table{}, fmt.Errorf("%v: no symbol tells the size of the array of %s", r.where(at), l.name)
	}
	t := table{layout: l, at: at, symbol: shown(symbol.Name), size: symbol.Size}
	offsets := r.relocsIn(at, t.size)
	switch beyond := slices.IndexFunc(offsets, func(off uint64) bool { return off >= l.shared }); {
	case len(offsets) == 0:
	case beyond < 0:
		if !r.fits(&t, offsets, t.size) {
			return table{}, t.strange()
		}
		t.count = 1
	default:
		if !r.stride(&t, offsets, offsets[beyond]) {
			return table{}, t.strange()
		}
	}
	return t, r.checkRest(&t)
}

func (t *table) strange() error {
	return fmt.Errorf("%s: the pointers in it are not those of an array of %s", t.symbol, t.name)
}

// stride finds the size of an entry from the first pointer of the second one.
func (r *reader) stride(t *table, offsets []uint64, second uint64) bool {
	for _, s := range t.slots {
		stride := second - s.off // second is behind all shared fields
		if stride < t.shared || !r.fits(t, offsets, stride) {
			continue
		}
		if t.stride != 0 {
			return false // two sizes make sense
		}
		t.stride = stride
	}
	if t.stride == 0 {
		return false
	}
	t.count = int(offsets[len(offsets)-1]/t.stride) + 1
	return t.size >= uint64(t.count)*t.stride && t.size%t.stride == 0
}

// fits tells whether all pointers of a table are where entries of a size have
// theirs.
func (r *reader) fits(t *table, offsets []uint64, stride uint64) bool {
	keys := uint64(0)
	for _, off := range offsets {
		i := slices.IndexFunc(t.slots, func(s slot) bool { return s.off == off%stride })
		if i < 0 || !r.pointsTo(t.at.plus(off), t.slots[i].to) {
			return false
		}
		if t.slots[i].off == t.key {
			if off/stride != keys {
				return false // an entry without its key
			}
			keys++
		}
	}
	return keys == offsets[len(offsets)-1]/stride+1
}

func (r *reader) pointsTo(at place, to pointee) bool {
	rel := r.relocAt[at]
	if to == toCode && rel.Sym != nil && rel.Sym.Section == nil {
		return elf.R_X86_64(rel.Type) == elf.R_X86_64_64
	}
	p, ok := r.pointer(at)
	return ok && points(to, p)
}

// checkRest refuses a table that holds something that is not understood.
func (r *reader) checkRest(t *table) error {
	data, ok := r.bytes(t.at, t.size)
	if !ok {
		return fmt.Errorf("%s: the array of %s ends outside its section", t.symbol, t.name)
	}
	data = bytes.Clone(data)
	known := r.relocsIn(t.at, t.size) // what is there before does not matter
	for i := range t.count {
		if t.number != 0 {
			known = append(known, uint64(i)*t.stride+t.number)
		}
	}
	for _, off := range known {
		if off+pointerSize > t.size {
			return fmt.Errorf("%s: an entry of the array of %s is cut off", t.symbol, t.name)
		}
		clear(data[off : off+pointerSize])
	}
	if i := slices.IndexFunc(data, func(c byte) bool { return c != 0 }); i >= 0 {
		return fmt.Errorf("%s: unknown contents at offset %#x in an array of %s", t.symbol, i, t.name)
	}
	return nil
}

// readObject reads a struct klp_object and its functions.
func (r *reader) readObject(at place) (Object, table, error) {
	o := Object{Name: vmlinux, Callbacks: []Callback{}, Functions: []Function{}}
	if p, ok := r.pointer(at.plus(objectName)); ok {
		name, err := r.text(p)
		if err != nil {
			return o, table{}, fmt.Errorf("%v: name: %w", r.where(at), err)
		}
		if o.Name = name; name == vmlinux || name == "" {
			r.problem("object %q is taken for a module: vmlinux is the object without a name", name)
		}
	}
	for i, kind := range callbackKinds() {
		if slot := at.plus(objectCallbacks + uint64(i)*pointerSize); r.has(slot) {
			o.Callbacks = append(o.Callbacks, Callback{kind, r.code(slot, fmt.Sprintf("%s: callback %s", shown(o.Name), kind))})
		}
	}
	p, ok := r.pointer(at.plus(objectFuncs))
	if !ok {
		return o, table{}, fmt.Errorf("%v: no functions", r.where(at))
	}
	t, err := r.table(p, funcLayout())
	if err != nil {
		return o, t, err
	}
	for i := range t.count {
		f, err := r.readFunction(t.entry(i), o.Name)
		if err != nil {
			return o, t, err
		}
		o.Functions = append(o.Functions, f)
	}
	slices.SortStableFunc(o.Functions, func(a, b Function) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Sympos, b.Sympos))
	})
	r.checkTwins(o)
	return o, t, nil
}

// checkTwins finds functions that would get the same name in sysfs, where a
// sympos of 0 shows as 1.
func (r *reader) checkTwins(o Object) {
	for i, f := range o.Functions[:max(len(o.Functions)-1, 0)] {
		if next := o.Functions[i+1]; f.Name == next.Name && max(f.Sympos, 1) == max(next.Sympos, 1) {
			r.problem("%s: function %s,%d is listed twice", shown(o.Name), shown(f.Name), max(f.Sympos, 1))
		}
	}
}

// readFunction reads a struct klp_func.
func (r *reader) readFunction(at place, object string) (Function, error) {
	p, ok := r.pointer(at.plus(funcOldName))
	if !ok {
		return Function{}, fmt.Errorf("%v: no old_name", r.where(at))
	}
	name, err := r.text(p)
	if err != nil {
		return Function{}, fmt.Errorf("%v: old_name: %w", r.where(at), err)
	}
	sympos, ok := r.bytes(at.plus(funcOldSympos), pointerSize)
	if !ok {
		return Function{}, fmt.Errorf("%v: ends before old_sympos", r.where(at))
	}
	f := Function{Name: name, Sympos: binary.LittleEndian.Uint64(sympos)}
	label := fmt.Sprintf("%s: function %s", shown(object), shown(name))
	if newFunc := at.plus(funcNewFunc); r.has(newFunc) {
		f.New = r.code(newFunc, label)
	} else {
		r.problem("%s: it has no new_func", label)
	}
	return f, nil
}

func (r *reader) has(p place) bool {
	_, ok := r.relocAt[p]
	return ok
}

// code describes the function that the pointer at p points to.
func (r *reader) code(p place, label string) Code {
	ref := r.relocAt[p].Sym
	to, ok := r.pointer(p)
	if !ok {
		if ref == nil {
			r.problem("%s: it points to nothing", label)
			return Code{}
		}
		r.problem("%s: it points to %s, which the module does not define", label, shown(ref.Name))
		return Code{Symbol: ref.Name}
	}
	f, ok := r.function(to, ref)
	if !ok {
		r.problem("%s: it points to %v, where no function starts", label, r.where(to))
		return Code{Section: to.section.Name}
	}
	return Code{Symbol: f.Name, Section: to.section.Name, Size: f.Size}
}

// states reads the array of struct klp_state, if the pointer at p is set.
func (r *reader) states(p place) error {
	if !r.has(p) {
		return nil
	}
	at, ok := r.pointer(p)
	if !ok {
		return fmt.Errorf("%v: states: no pointer into the module", r.where(p))
	}
	symbol, ok := r.variable(at)
	if !ok {
		return fmt.Errorf("%v: no symbol tells the size of the array of struct klp_state", r.where(at))
	}
	data, ok := r.bytes(at, symbol.Size)
	if !ok {
		return fmt.Errorf("%s: the array of struct klp_state ends outside its section", shown(symbol.Name))
	}
	for _, off := range r.relocsIn(at, symbol.Size) {
		if off%stateSize != stateData {
			return fmt.Errorf("%s: the pointers in it are not those of an array of struct klp_state", shown(symbol.Name))
		}
	}
	for ; len(data) >= stateSize; data = data[stateSize:] {
		id := binary.LittleEndian.Uint64(data)
		if id == 0 {
			break
		}
		r.module.States = append(r.module.States, State{ID: id, Version: binary.LittleEndian.Uint32(data[stateVersion:])})
	}
	slices.SortStableFunc(r.module.States, func(a, b State) int { return cmp.Compare(a.ID, b.ID) })
	if len(data) >= stateSize {
		return nil
	}
	r.problem("%s: the array of struct klp_state does not end with an entry of zeros", shown(symbol.Name))
	return nil
}
