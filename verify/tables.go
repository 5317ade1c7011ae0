package verify

// The redirect table: what klp_enable_patch is given. A struct klp_patch leads to
// an array of struct klp_object, which lead to arrays of struct klp_func; each
// array ends with an entry of zeros. The first fields of each are the same in all
// kernels; behind them are the kernel's own, so that the size of an entry follows
// from that of the array, which its symbol has, and the number of its pointers.

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
)

// Offsets of fields in bytes. Source: include/linux/livepatch.h, 6.1 to 7.x.
const (
	patchMod     = 0
	patchObjs    = 8
	patchReplace = 24

	objectName      = 0
	objectFuncs     = 8
	objectCallbacks = 16
	callbackCount   = 4

	funcOldName   = 0
	funcNewFunc   = 8
	funcOldSympos = 16
)

// tables is what the redirect table says.
type tables struct {
	replace bool
	objects []klpObject
	// newFuncs and callbacks are the places of these pointers.
	newFuncs, callbacks map[place]bool
}

type klpObject struct {
	name      string
	at        place
	where     string
	funcs     []klpFunc
	callbacks []place // of the pointers
}

type klpFunc struct {
	name  string
	pos   int
	newAt place // where the new function is
	where string
}

// redirects reads the redirect table, and pairs each new function with the
// changed one that it stands for.
func (c *check) redirects() {
	if c.tables == nil {
		return // accepted has said why
	}
	type key struct {
		u *unit
		p *elfdiff.Piece
	}
	redirected := map[key]bool{}
	for _, o := range c.tables.objects {
		for _, f := range o.funcs {
			at, err := c.v.resolve(o.name, f.name, f.pos)
			if err != nil {
				continue // accepted has said so
			}
			u, change, ok := c.changedAt(o.name, at)
			if !ok {
				c.find(Patched, f.where, fmt.Sprintf("%s,%d of %s is redirected, and the patch does not change it", f.name, f.pos, o.name), reportHint)
				continue
			}
			p := u.back[change.Patched]
			if redirected[key{u, p}] {
				c.find(Patched, f.where, fmt.Sprintf("%s of %s is redirected twice", f.name, o.name), reportHint)
			}
			redirected[key{u, p}] = true
			c.pair(pieceID{u, p}, place{f.newAt.sec, f.newAt.off - (p.Origin() - p.Lo)}, f.where)
		}
	}
	for _, u := range c.v.units {
		for _, f := range u.Diff.Functions {
			if f.Kind == elfdiff.IsChanged && f.Orig.Traceable() && !c.overridden(u, f.Orig) && !redirected[key{u, u.back[f.Patched]}] {
				c.find(Patched, u.Source, fmt.Sprintf("%s of %s changes, and the module does not redirect it", f.Name(), u.Object), reportHint)
			}
		}
	}
	c.count(Patched, "functions redirected", len(redirected))
}

// changedAt finds the changed function whose original is at a place.
func (c *check) changedAt(object string, at kernelPlace) (*unit, elfdiff.Change, bool) {
	for _, u := range c.v.units {
		if u.Object != object {
			continue
		}
		for _, f := range u.Diff.Functions {
			if f.Kind != elfdiff.IsChanged {
				continue
			}
			o, ok := u.origin[f.Orig]
			if !ok {
				o.at, o.err = c.v.origin(u, f.Orig)
				u.origin[f.Orig] = o
			}
			if o.err == nil && o.at == at {
				return u, f, true
			}
		}
	}
	return nil, elfdiff.Change{}, false
}

// overridden tells whether a function is weak, and the kernel uses another
// definition of it: then the changed one does not run.
func (c *check) overridden(u *unit, p *elfdiff.Piece) bool {
	const weak = 2 // STB_WEAK
	if int(p.Sym.Bind) != weak {
		return false
	}
	if u.module != nil {
		s := u.defined[p.Sym.Name]
		return s != nil && int(s.Bind) != weak
	}
	all := c.v.kernel.Symtab.Named(p.Sym.Name)
	for _, i := range all {
		if k := c.v.kernel.Symtab.At(i).Kind; k == 'W' || k == 'w' {
			return false
		}
	}
	return len(all) > 0
}

// readTables finds the struct klp_patch by its name in the init file, and reads
// what it leads to.
func (c *check) readTables() (*tables, error) {
	var patch *elfobj.Symbol
	for _, s := range c.named["klpc_patch"] {
		if s.Section != nil && patch == nil {
			patch = s
		}
	}
	if patch == nil {
		return nil, fmt.Errorf("no klpc_patch: this module was not made by klpc, and its tables cannot be read")
	}
	t := &tables{newFuncs: map[place]bool{}, callbacks: map[place]bool{}}
	at := place{patch.Section, patch.Value}
	mod := c.relocAt(at.sec, at.off+patchMod)
	if mod == nil || mod.Addend != 0 || mod.Sym == nil || mod.Sym.Name != "__this_module" {
		return nil, fmt.Errorf("the struct klp_patch does not name the module itself")
	}
	flag, ok := c.data(place{at.sec, at.off + patchReplace}, 1)
	if !ok || flag[0] > 1 {
		return nil, fmt.Errorf("the flag replace is neither 0 nor 1")
	}
	t.replace = flag[0] == 1
	objs, err := c.array(at, patchObjs, "klp_object")
	if err != nil {
		return nil, err
	}
	n := 0
	for _, r := range c.within(objs.at.sec, objs.at.off, objs.at.off+objs.size) {
		// Every object has a pointer to functions, which are data.
		if to, ok := internal(r); ok && to.sec == objs.at.sec {
			n++
		}
	}
	stride, err := c.stride(objs, n, objectCallbacks+8*callbackCount)
	if err != nil {
		return nil, err
	}
	for i := range n {
		o, err := c.readObject(t, place{objs.at.sec, objs.at.off + uint64(i)*stride})
		if err != nil {
			return nil, err
		}
		t.objects = append(t.objects, o)
	}
	return t, c.zeros(objs, uint64(n)*stride)
}

func (c *check) readObject(t *tables, at place) (klpObject, error) {
	o := klpObject{name: VMLinux, at: at, where: c.where(at.sec, at.off)}
	var err error
	if c.relocAt(at.sec, at.off+objectName) != nil {
		if o.name, err = c.text(place{at.sec, at.off + objectName}); err != nil {
			return o, fmt.Errorf("%s: the object's name: %w", o.where, err)
		}
	}
	for i := range uint64(callbackCount) {
		slot := place{at.sec, at.off + objectCallbacks + 8*i}
		if c.relocAt(slot.sec, slot.off) != nil {
			o.callbacks = append(o.callbacks, slot)
			t.callbacks[slot] = true
		}
	}
	funcs, err := c.array(at, objectFuncs, "klp_func")
	if err != nil {
		return o, err
	}
	rs := c.within(funcs.at.sec, funcs.at.off, funcs.at.off+funcs.size)
	n := len(rs) / 2 // old_name and new_func
	stride, err := c.stride(funcs, n, funcOldSympos+8)
	if err != nil {
		return o, err
	}
	for i := range uint64(n) {
		f, err := c.readFunc(t, place{funcs.at.sec, funcs.at.off + i*stride})
		if err != nil {
			return o, err
		}
		o.funcs = append(o.funcs, f)
	}
	return o, c.zeros(funcs, uint64(n)*stride)
}

func (c *check) readFunc(t *tables, at place) (klpFunc, error) {
	f := klpFunc{where: c.where(at.sec, at.off)}
	var err error
	if f.name, err = c.text(place{at.sec, at.off + funcOldName}); err != nil {
		return f, fmt.Errorf("%s: the function's name: %w", f.where, err)
	}
	pos, ok := c.data(place{at.sec, at.off + funcOldSympos}, 8)
	if !ok || binary.LittleEndian.Uint64(pos) > 1<<31 {
		return f, fmt.Errorf("%s: no position", f.where)
	}
	f.pos = int(binary.LittleEndian.Uint64(pos))
	slot := place{at.sec, at.off + funcNewFunc}
	r := c.relocAt(slot.sec, slot.off)
	if r == nil || r.klp != "" || r.Type != rX64 {
		return f, fmt.Errorf("%s: no new function", f.where)
	}
	if f.newAt, ok = internal(r); !ok {
		return f, fmt.Errorf("%s: the new function is not in the module", f.where)
	}
	t.newFuncs[slot] = true
	return f, nil
}

const rX64 = 1 // R_X86_64_64

// array is an array of structures.
type array struct {
	at   place
	size uint64
	name string
}

// array follows a pointer to an array.
func (c *check) array(at place, field uint64, name string) (array, error) {
	r := c.relocAt(at.sec, at.off+field)
	if r == nil || r.klp != "" || r.Type != rX64 {
		return array{}, fmt.Errorf("%s: no pointer to an array of struct %s", c.where(at.sec, at.off+field), name)
	}
	to, ok := internal(r)
	if !ok {
		return array{}, fmt.Errorf("%s: the pointer to an array of struct %s leads out of the module", c.where(at.sec, at.off+field), name)
	}
	for _, s := range c.at[to] {
		if s.Size > 0 && s.Value+s.Size <= to.sec.Size {
			return array{to, s.Size, name}, nil
		}
	}
	return array{}, fmt.Errorf("%s: no array of struct %s begins where the pointer leads", c.where(at.sec, at.off+field), name)
}

// stride is the size of an entry: the array holds n and one of zeros. It must be
// the kernel's, where that is known.
func (c *check) stride(a array, n int, least uint64) (uint64, error) {
	s := a.size / uint64(n+1)
	if n == 0 || a.size%uint64(n+1) != 0 || s < least || s%8 != 0 {
		return 0, fmt.Errorf("the array of struct %s has %d bytes for %d entries and one of zeros", a.name, a.size, n)
	}
	if known := c.v.layout.sizes[a.name]; known != 0 && known != s {
		return 0, fmt.Errorf("the array of struct %s has entries of %d bytes; the kernel's have %d", a.name, s, known)
	}
	return s, nil
}

// zeros makes sure that an array ends with an entry of zeros.
func (c *check) zeros(a array, from uint64) error {
	data, ok := c.data(place{a.at.sec, a.at.off + from}, a.size-from)
	if !ok || len(bytes.Trim(data, "\x00")) > 0 || len(c.within(a.at.sec, a.at.off+from, a.at.off+a.size)) > 0 {
		return fmt.Errorf("the array of struct %s does not end with an entry of zeros", a.name)
	}
	return nil
}

// data returns n bytes of the module.
func (c *check) data(at place, n uint64) ([]byte, bool) {
	d := at.sec.Data
	if at.off > uint64(len(d)) || n > uint64(len(d))-at.off {
		return nil, false
	}
	return d[at.off : at.off+n], true
}

// text reads the string that a pointer leads to.
func (c *check) text(at place) (string, error) {
	r := c.relocAt(at.sec, at.off)
	if r == nil || r.klp != "" || r.Type != rX64 {
		return "", fmt.Errorf("there is no pointer")
	}
	to, ok := internal(r)
	if !ok || to.off > uint64(len(to.sec.Data)) {
		return "", fmt.Errorf("the pointer leads to no string of the module")
	}
	text, _, ok := bytes.Cut(to.sec.Data[to.off:], []byte{0})
	if !ok {
		return "", fmt.Errorf("the string does not end")
	}
	return string(text), nil
}
