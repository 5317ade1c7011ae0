package typediff

// How a unit is read.
//
// One walk over the entries of .debug_info makes a node for each type. A reference
// to a type is the offset of its entry, so the node of a type that comes later is
// made when it is first referred to and filled in when the walk gets there. The
// walk keeps a stack of the entries that it is inside of: a member belongs to the
// record above it, a variable to the function above it.

import (
	"debug/dwarf"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/klpc/klpc/elfobj"
)

// ErrNoDebugInfo is an object that was compiled without -g.
var ErrNoDebugInfo = errors.New("no debug information")

// kind is what a type is.
type kind uint8

const (
	unknown kind = iota
	base
	pointer
	array
	function
	structure
	union
	enumeration
	alias // typedef, const, volatile, restrict, atomic
)

// node is one type.
type node struct {
	kind    kind
	name    string // tag, typedef's name or base type's name; empty for unnamed types
	known   string // unnamed records and enums: the typedef that names them
	in      *code  // the function that the type is local to
	size    int64  // bytes; 0 if not given
	decl    bool   // declared only
	file    string
	line    int
	elem    *node   // pointed to, element, aliased, returned; nil: void
	counts  []int64 // array dimensions; 0: flexible or none
	class   class   // base
	members []member
	values  []enumerator
	params  []*node // a nil one stands for "..."
}

// class is what the bits of a scalar mean.
type class uint8

const (
	otherClass class = iota
	signedInt
	unsignedInt
	boolean
	floating
	address
)

// member is one member of a record.
type member struct {
	name string // empty: anonymous
	typ  *node
	off  int64 // bits from the start of the record
	bits int64 // width of a bit-field; 0: that of the type
	line int
}

// enumerator is one constant of an enum.
type enumerator struct {
	name  string
	value int64
}

// variable is a global or static variable.
type variable struct {
	name string
	typ  *node
}

// code is one function with what its variables and parameters say.
type code struct {
	name    string
	here    bool    // code was emitted for it
	types   []*node // of parameters, variables and the result
	result  *node
	params  []*node
	copyOf  dwarf.Offset // the entry with name and prototype; 0: this one
	origins []dwarf.Offset
}

// Unit holds the types of one translation unit. It is immutable.
type Unit struct {
	nodes   map[dwarf.Offset]*node
	order   []*node // records and enums in file order
	vars    []variable
	codes   map[dwarf.Offset]*code
	listed  []*code // in file order
	tags    map[tag]*node
	enumers map[string]enumOf
}

// tag identifies a type within a unit.
type tag struct{ name, scope string }

// enumOf is an enumerator at file scope with its enum.
type enumOf struct {
	value int64
	enum  *node
}

// Read reads the types of a relocatable object.
func Read(o *elfobj.Object) (*Unit, error) {
	d, err := debugData(o)
	if err != nil {
		return nil, err
	}
	w := &walk{data: d, unit: &Unit{nodes: map[dwarf.Offset]*node{}, codes: map[dwarf.Offset]*code{}}}
	if err := w.run(); err != nil {
		return nil, fmt.Errorf("debug information: %w", err)
	}
	w.unit.index()
	return w.unit, nil
}

// debugData collects the sections of the debug information, with their
// relocations applied: offsets into other such sections.
func debugData(o *elfobj.Object) (*dwarf.Data, error) {
	sections := map[string][]byte{}
	for _, s := range o.Sections {
		if len(s.Name) < len(".debug_") || s.Name[:len(".debug_")] != ".debug_" || s.Type == elf.SHT_RELA {
			continue
		}
		if sections[s.Name] != nil {
			continue // .debug_macro comes in groups, which are of no use here
		}
		if s.Flags&elf.SHF_COMPRESSED != 0 {
			return nil, fmt.Errorf("%s is compressed", s.Name)
		}
		sections[s.Name] = relocated(o, s)
	}
	if sections[".debug_info"] == nil {
		return nil, ErrNoDebugInfo
	}
	d, err := dwarf.New(sections[".debug_abbrev"], nil, nil, sections[".debug_info"], sections[".debug_line"], nil, sections[".debug_ranges"], sections[".debug_str"])
	if err != nil {
		return nil, err
	}
	for _, name := range []string{".debug_addr", ".debug_line_str", ".debug_str_offsets", ".debug_rnglists"} {
		if err := d.AddSection(name, sections[name]); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func relocated(o *elfobj.Object, s *elfobj.Section) []byte {
	relocs := o.Relocs(s)
	if len(relocs) == 0 {
		return s.Data
	}
	data := append([]byte(nil), s.Data...)
	for _, r := range relocs {
		value := uint64(r.Addend)
		if r.Sym != nil {
			value += r.Sym.Value
		}
		switch elf.R_X86_64(r.Type) {
		case elf.R_X86_64_64:
			if r.Off+8 <= uint64(len(data)) {
				binary.LittleEndian.PutUint64(data[r.Off:], value)
			}
		case elf.R_X86_64_32, elf.R_X86_64_32S:
			if r.Off+4 <= uint64(len(data)) {
				binary.LittleEndian.PutUint32(data[r.Off:], uint32(value))
			}
		}
	}
	return data
}

// walk is the state of reading.
type walk struct {
	data  *dwarf.Data
	unit  *Unit
	files []*dwarf.LineFile
	stack []frame
}

// frame is an entry that the walk is inside of.
type frame struct {
	node *node // set in a record, an enum, an array or a function type
	code *code // set in a function
}

func (w *walk) run() error {
	r := w.data.Reader()
	for {
		e, err := r.Next()
		if err != nil {
			return err
		}
		if e == nil {
			return nil
		}
		if e.Tag == 0 {
			if len(w.stack) > 0 {
				w.stack = w.stack[:len(w.stack)-1]
			}
			continue
		}
		f, err := w.entry(e)
		if err != nil {
			return err
		}
		if e.Children {
			w.stack = append(w.stack, f)
		}
	}
}

func (w *walk) top() frame {
	if len(w.stack) == 0 {
		return frame{}
	}
	return w.stack[len(w.stack)-1]
}

// entry takes in one entry and returns the frame of its children.
func (w *walk) entry(e *dwarf.Entry) (frame, error) {
	top := w.top()
	inside := frame{code: top.code}
	switch e.Tag {
	case dwarf.TagCompileUnit, dwarf.TagPartialUnit:
		return frame{}, w.lineTable(e)
	case dwarf.TagSkeletonUnit:
		return frame{}, errors.New("it lies in a file of its own (-gsplit-dwarf)")
	case dwarf.TagTypeUnit:
		return frame{}, errors.New("types in units of their own (-fdebug-types-section)")
	case dwarf.TagBaseType, dwarf.TagUnspecifiedType, dwarf.TagPointerType, dwarf.TagArrayType, dwarf.TagSubroutineType,
		dwarf.TagStructType, dwarf.TagUnionType, dwarf.TagEnumerationType,
		dwarf.TagTypedef, dwarf.TagConstType, dwarf.TagVolatileType, dwarf.TagRestrictType, dwarf.TagAtomicType:
		inside.node = w.newType(e, top.code)
	case dwarf.TagMember:
		return inside, w.member(e, top.node)
	case dwarf.TagSubrangeType:
		if top.node != nil && top.node.kind == array {
			top.node.counts = append(top.node.counts, extent(e))
		}
	case dwarf.TagEnumerator:
		if top.node != nil && top.node.kind == enumeration {
			v, _ := integer(e, dwarf.AttrConstValue)
			top.node.values = append(top.node.values, enumerator{text(e, dwarf.AttrName), v})
		}
	case dwarf.TagUnspecifiedParameters:
		if top.node != nil && top.node.kind == function {
			top.node.params = append(top.node.params, nil)
		}
	case dwarf.TagFormalParameter:
		w.parameter(e, top)
	case dwarf.TagVariable:
		w.variable(e, top.code)
	case dwarf.TagSubprogram:
		inside.code = w.function(e)
	case dwarf.TagInlinedSubroutine:
		if off, ok := e.Val(dwarf.AttrAbstractOrigin).(dwarf.Offset); ok && top.code != nil {
			top.code.origins = append(top.code.origins, off)
		}
	}
	return inside, nil
}

func (w *walk) lineTable(e *dwarf.Entry) error {
	lr, err := w.data.LineReader(e)
	if err != nil {
		return err
	}
	w.files = nil
	if lr != nil {
		w.files = lr.Files()
	}
	return nil
}

func (w *walk) file(e *dwarf.Entry) string {
	n, ok := integer(e, dwarf.AttrDeclFile)
	if !ok || n < 0 || int(n) >= len(w.files) || w.files[n] == nil {
		return ""
	}
	return w.files[n].Name
}

// at is the node of the type at an offset.
func (w *walk) at(off dwarf.Offset) *node {
	n := w.unit.nodes[off]
	if n == nil {
		n = &node{}
		w.unit.nodes[off] = n
	}
	return n
}

// typeOf is the type that an entry refers to; nil: void.
func (w *walk) typeOf(e *dwarf.Entry) *node {
	if off, ok := e.Val(dwarf.AttrType).(dwarf.Offset); ok {
		return w.at(off)
	}
	return nil
}

func (w *walk) newType(e *dwarf.Entry, in *code) *node {
	n := w.at(e.Offset)
	n.name = text(e, dwarf.AttrName)
	n.elem = w.typeOf(e)
	n.size, _ = integer(e, dwarf.AttrByteSize)
	n.in = in
	switch e.Tag {
	case dwarf.TagBaseType:
		n.kind, n.class = base, classOf(e)
	case dwarf.TagPointerType:
		n.kind, n.size = pointer, max(n.size, 8)
	case dwarf.TagArrayType:
		n.kind = array
	case dwarf.TagSubroutineType:
		n.kind = function
	case dwarf.TagStructType:
		n.kind = structure
	case dwarf.TagUnionType:
		n.kind = union
	case dwarf.TagEnumerationType:
		n.kind = enumeration
	case dwarf.TagTypedef, dwarf.TagConstType, dwarf.TagVolatileType, dwarf.TagRestrictType, dwarf.TagAtomicType:
		n.kind = alias
	}
	switch n.kind {
	case structure, union, enumeration:
		n.decl, _ = e.Val(dwarf.AttrDeclaration).(bool)
		n.file = w.file(e)
		line, _ := integer(e, dwarf.AttrDeclLine)
		n.line = int(line)
		w.unit.order = append(w.unit.order, n)
	}
	return n
}

func classOf(e *dwarf.Entry) class {
	switch n, _ := integer(e, dwarf.AttrEncoding); n {
	case 0x02: // DW_ATE_boolean
		return boolean
	case 0x03, 0x04: // DW_ATE_complex_float, DW_ATE_float
		return floating
	case 0x05, 0x06: // DW_ATE_signed, DW_ATE_signed_char
		return signedInt
	case 0x07, 0x08, 0x10: // DW_ATE_unsigned, DW_ATE_unsigned_char, DW_ATE_UTF
		return unsignedInt
	}
	return otherClass
}

func (w *walk) member(e *dwarf.Entry, in *node) error {
	if in == nil || in.kind != structure && in.kind != union {
		return nil
	}
	m := member{name: text(e, dwarf.AttrName), typ: w.typeOf(e)}
	line, _ := integer(e, dwarf.AttrDeclLine)
	m.line = int(line)
	m.bits, _ = integer(e, dwarf.AttrBitSize)
	start, err := location(e)
	if err != nil {
		return fmt.Errorf("member %s of %s: %w", m.name, in.name, err)
	}
	m.off = 8 * start
	if bit, ok := integer(e, dwarf.AttrDataBitOffset); ok {
		m.off += bit
	} else if bit, ok := integer(e, dwarf.AttrBitOffset); ok {
		// DWARF 3: from the most significant bit of a storage unit.
		unit, given := integer(e, dwarf.AttrByteSize)
		if !given {
			return fmt.Errorf("member %s of %s: a bit-field without its storage unit", m.name, in.name)
		}
		m.off += 8*unit - bit - m.bits
	}
	in.members = append(in.members, m)
	return nil
}

// location is where a member begins, in bytes.
func location(e *dwarf.Entry) (int64, error) {
	switch v := e.Val(dwarf.AttrDataMemberLoc).(type) {
	case nil:
		return 0, nil
	case int64:
		return v, nil
	}
	return 0, errors.New("its place is computed")
}

// extent is the number of elements of an array's dimension; 0 if it has none.
func extent(e *dwarf.Entry) int64 {
	if n, ok := integer(e, dwarf.AttrCount); ok {
		return max(n, 0)
	}
	if n, ok := integer(e, dwarf.AttrUpperBound); ok {
		return max(n+1, 0)
	}
	return 0
}

func (w *walk) parameter(e *dwarf.Entry, top frame) {
	switch {
	case top.node != nil && top.node.kind == function:
		top.node.params = append(top.node.params, w.typeOf(e))
	case top.code != nil:
		n := w.typeOf(e)
		top.code.params = append(top.code.params, n)
		if n != nil {
			top.code.types = append(top.code.types, n)
		}
	}
}

// static tells whether a variable has an address for good: its location is one
// (DW_OP_addr, DW_OP_addrx, DW_OP_GNU_addr_index).
func static(e *dwarf.Entry) bool {
	loc, ok := e.Val(dwarf.AttrLocation).([]byte)
	return ok && len(loc) > 0 && (loc[0] == 0x03 || loc[0] == 0xa1 || loc[0] == 0xfb)
}

func (w *walk) variable(e *dwarf.Entry, in *code) {
	n := w.typeOf(e)
	if n == nil {
		return
	}
	if in == nil || static(e) {
		w.unit.vars = append(w.unit.vars, variable{text(e, dwarf.AttrName), n})
	}
	if in != nil {
		in.types = append(in.types, n)
	}
}

func (w *walk) function(e *dwarf.Entry) *code {
	c := &code{name: text(e, dwarf.AttrName)}
	if c.result = w.typeOf(e); c.result != nil {
		c.types = append(c.types, c.result)
	}
	c.here = e.Val(dwarf.AttrLowpc) != nil || e.Val(dwarf.AttrRanges) != nil
	for _, a := range []dwarf.Attr{dwarf.AttrAbstractOrigin, dwarf.AttrSpecification} {
		if off, ok := e.Val(a).(dwarf.Offset); ok {
			c.origins, c.copyOf = append(c.origins, off), off
		}
	}
	w.unit.codes[e.Offset] = c
	w.unit.listed = append(w.unit.listed, c)
	return c
}

func text(e *dwarf.Entry, a dwarf.Attr) string {
	s, _ := e.Val(a).(string)
	return s
}

func integer(e *dwarf.Entry, a dwarf.Attr) (int64, bool) {
	switch v := e.Val(a).(type) {
	case int64:
		return v, true
	case uint64:
		return int64(v), true
	}
	return 0, false
}

// index names the types once all are known.
func (u *Unit) index() {
	for _, n := range u.nodes {
		if n.kind == alias && n.name != "" && n.elem != nil && n.elem.name == "" && n.elem.isTagged() {
			// Of several typedefs the same one is taken every time.
			if n.elem.known == "" || n.name < n.elem.known {
				n.elem.known = n.name
			}
		}
	}
	for _, c := range u.listed {
		if o := u.codes[c.copyOf]; o != nil {
			c.name = o.name
		}
	}
	u.tags, u.enumers = map[tag]*node{}, map[string]enumOf{}
	for _, n := range u.order {
		t := n.tag()
		if have := u.tags[t]; t.name != "" && !n.decl && (have == nil || have.decl) {
			u.tags[t] = n
		}
		if n.kind != enumeration || n.in != nil {
			continue
		}
		for _, v := range n.values {
			u.enumers[v.name] = enumOf{v.value, n}
		}
	}
}

// words are how C calls what has a tag.
var words = map[kind]string{structure: "struct", union: "union", enumeration: "enum"}

func (n *node) isTagged() bool {
	return n.kind == structure || n.kind == union || n.kind == enumeration
}

func (n *node) tag() tag {
	scope := ""
	if n.in != nil {
		scope = n.in.name
	}
	switch {
	case n.name == "" && n.known == "":
		return tag{}
	case n.name == "":
		return tag{n.known, scope}
	}
	return tag{words[n.kind] + " " + n.name, scope}
}
