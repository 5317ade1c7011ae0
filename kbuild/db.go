package kbuild

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"sort"

	"github.com/google/renameio/v2"
)

// The compile database of a tree that has not been built: what
// `make -n -k vmlinux modules` would run.
//
// make prints one line a recipe, up to 20 kB long and 50 MB in all, of which
// the compile command is a third (the rest is traps, fixdep's quoted copy and
// genksyms). The words repeat from unit to unit, so each distinct word is kept
// once in a table and a command is a list of numbers in that table. The
// encoded form is that same table and those lists:
//
//	"klpcdb1\n"
//	number of words, then each word: length, bytes
//	number of units, then each unit: source·2+generated, object, args, objtool
//	CRC-32C of all before, 4 bytes little-endian
//
// where args and objtool are a length in bytes and that many bytes of word
// numbers, and all numbers are unsigned varints (encoding/binary).

const dbMagic = "klpcdb1\n"

// DB is a compile database. It does not change once it is made.
type DB struct {
	words []string
	units []dbUnit // sorted by source, object
}

type dbUnit struct {
	source, object uint32 // in DB.words
	generated      bool
	args, objtool  []byte // varints: numbers in DB.words; objtool nil: none
}

// Len is the number of units.
func (d *DB) Len() int { return len(d.units) }

// Units returns all units, sorted by source, then object.
func (d *DB) Units() []Unit {
	units := make([]Unit, len(d.units))
	for i := range d.units {
		units[i] = d.unit(i)
	}
	return units
}

// UnitsOf returns the units that compile source, sorted by object.
func (d *DB) UnitsOf(source string) []Unit {
	i := sort.Search(len(d.units), func(i int) bool { return d.words[d.units[i].source] >= source })
	var units []Unit
	for ; i < len(d.units) && d.words[d.units[i].source] == source; i++ {
		if !d.units[i].generated {
			units = append(units, d.unit(i))
		}
	}
	return units
}

func (d *DB) unitOfObject(object string) (Unit, bool) {
	for i := range d.units {
		if d.words[d.units[i].object] == object {
			return d.unit(i), true
		}
	}
	return Unit{}, false
}

func (d *DB) unit(i int) Unit {
	e := d.units[i]
	u := Unit{
		Source: d.words[e.source], Generated: e.generated, Object: d.words[e.object],
		Args: d.list(e.args), Objtool: d.list(e.objtool),
	}
	u.Modules, u.Modfile = modulesOf(u.Args)
	return u
}

func (d *DB) list(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	out := make([]string, 0, len(b))
	for len(b) > 0 {
		v, n := binary.Uvarint(b)
		out = append(out, d.words[v])
		b = b[n:]
	}
	return out
}

// ParseDryRun reads the output of `make -n -k … vmlinux modules` run for the
// tree of source and build (absolute, without symbolic links). Commands that
// Kbuild runs outside the build directory are left out. A compile command that
// cannot be understood is an error; all such are reported.
func ParseDryRun(r io.Reader, source, build string) (*DB, error) {
	p := dryRun{roots: roots{source, build}, numbers: map[string]uint32{}, seen: map[[2]uint32]bool{}, db: &DB{}}
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 1<<20), 64<<20)
	for n := 1; sc.Scan(); n++ {
		if err := p.line(sc.Bytes()); err != nil {
			p.errs = append(p.errs, fmt.Errorf("dry run:%d: %w", n, err))
		}
	}
	if err := sc.Err(); err != nil {
		p.errs = append(p.errs, fmt.Errorf("read dry run: %w", err))
	}
	if len(p.db.units) == 0 {
		p.errs = append(p.errs, errors.New("dry run: it compiles nothing; is it the output of make -n vmlinux modules?"))
	}
	if err := errors.Join(p.errs...); err != nil {
		return nil, err
	}
	d := p.db
	sort.Slice(d.units, func(i, j int) bool {
		a, b := &d.units[i], &d.units[j]
		if a.source != b.source {
			return d.words[a.source] < d.words[b.source]
		}
		return d.words[a.object] < d.words[b.object]
	})
	return d, nil
}

type dryRun struct {
	roots   roots
	db      *DB
	numbers map[string]uint32
	seen    map[[2]uint32]bool // source, object
	cmd     command
	errs    []error
}

// trapEnd ends what Kbuild (since 5.15) puts before each command so that an
// interrupt deletes the target.
var trapEnd = []byte("kill -s PIPE $$' PIPE;")

func (p *dryRun) line(line []byte) error {
	if !bytes.Contains(line, []byte(" -c ")) {
		return nil
	}
	if i := bytes.Index(line, trapEnd); i >= 0 {
		line = line[i+len(trapEnd):]
	}
	f, ok, err := findCompile(line, &p.cmd, p.intern)
	if err != nil || !ok {
		return err
	}
	u, err := newUnit(p.roots, f)
	if errors.Is(err, errOutside) {
		return nil // a program of a sub-make that runs in another directory
	}
	if err != nil {
		return err
	}
	e := dbUnit{
		source: p.number(u.Source), generated: u.Generated, object: p.number(u.Object),
		args: p.encode(u.Args), objtool: p.encode(u.Objtool),
	}
	key := [2]uint32{e.source, e.object}
	if !p.seen[key] {
		p.seen[key] = true
		p.db.units = append(p.db.units, e)
	}
	return nil
}

func (p *dryRun) intern(w []byte) string {
	if n, ok := p.numbers[string(w)]; ok {
		return p.db.words[n]
	}
	s := string(w)
	p.number(s)
	return s
}

func (p *dryRun) number(s string) uint32 {
	n, ok := p.numbers[s]
	if !ok {
		n = uint32(len(p.db.words))
		p.numbers[s] = n
		p.db.words = append(p.db.words, s)
	}
	return n
}

func (p *dryRun) encode(list []string) []byte {
	if len(list) == 0 {
		return nil
	}
	b := make([]byte, 0, 2*len(list))
	for _, s := range list {
		b = binary.AppendUvarint(b, uint64(p.number(s)))
	}
	return slices.Clip(b)
}

// Encode returns the database as bytes, for DecodeDB.
func (d *DB) Encode() []byte {
	e := encoder{b: []byte(dbMagic)}
	e.strings(d.words)
	e.number(len(d.units))
	for _, u := range d.units {
		s := uint64(u.source) * 2
		if u.generated {
			s++
		}
		e.b = binary.AppendUvarint(e.b, s)
		e.number(int(u.object))
		e.bytes(u.args)
		e.bytes(u.objtool)
	}
	return e.seal()
}

// DecodeDB reads what Encode returned. It keeps views into data.
func DecodeDB(data []byte) (*DB, error) {
	in, err := unseal(data, dbMagic)
	if err != nil {
		return nil, fmt.Errorf("compile database: %w", err)
	}
	d := &DB{words: in.strings()}
	n := in.count()
	d.units = make([]dbUnit, 0, n)
	for range n {
		s := in.number()
		u := dbUnit{source: uint32(s / 2), generated: s%2 == 1, object: in.index(len(d.words)), args: in.bytes(), objtool: in.bytes()}
		in.checkIndex(s/2, len(d.words))
		in.checkList(u.args, len(d.words))
		in.checkList(u.objtool, len(d.words))
		d.units = append(d.units, u)
	}
	if in.err != nil {
		return nil, fmt.Errorf("compile database: %w", in.err)
	}
	return d, nil
}

// Save writes the database to path, which appears complete or not at all.
func (d *DB) Save(path string) error {
	if err := renameio.WriteFile(path, d.Encode(), 0o644); err != nil {
		return fmt.Errorf("save compile database: %w", err)
	}
	return nil
}

// LoadDB reads a database that Save wrote.
func LoadDB(path string) (*DB, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load compile database: %w", err)
	}
	d, err := DecodeDB(data)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	return d, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encoder builds the files of this package: varints, strings, checksum.
type encoder struct{ b []byte }

func (e *encoder) number(n int) { e.b = binary.AppendUvarint(e.b, uint64(n)) }

func (e *encoder) bytes(b []byte) {
	e.number(len(b))
	e.b = append(e.b, b...)
}

func (e *encoder) strings(list []string) {
	e.number(len(list))
	for _, s := range list {
		e.number(len(s))
		e.b = append(e.b, s...)
	}
}

func (e *encoder) seal() []byte {
	return binary.LittleEndian.AppendUint32(e.b, crc32.Checksum(e.b, castagnoli))
}

var errDamaged = errors.New("damaged file")

// decoder reads what encoder built. After the first error all reads return
// zero values and err stays.
type decoder struct {
	b   []byte
	err error
}

// unseal checks magic and checksum.
func unseal(data []byte, magic string) (*decoder, error) {
	if len(data) < len(magic)+4 || string(data[:len(magic)]) != magic {
		return nil, fmt.Errorf("%w: it does not begin with %q", errDamaged, magic)
	}
	body := data[:len(data)-4]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(data[len(body):]) {
		return nil, fmt.Errorf("%w: wrong checksum", errDamaged)
	}
	return &decoder{b: body[len(magic):]}, nil
}

func (d *decoder) fail() {
	if d.err == nil {
		d.err = errDamaged
	}
	d.b = nil
}

func (d *decoder) number() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads the number of items that follow, each of at least one byte.
func (d *decoder) count() int {
	v := d.number()
	if v > uint64(len(d.b)) {
		d.fail()
		return 0
	}
	return int(v)
}

func (d *decoder) index(limit int) uint32 {
	v := d.number()
	d.checkIndex(v, limit)
	return uint32(v)
}

func (d *decoder) checkIndex(v uint64, limit int) {
	if d.err == nil && v >= uint64(limit) {
		d.fail()
	}
}

// checkList checks that b is a list of numbers below limit.
func (d *decoder) checkList(b []byte, limit int) {
	for len(b) > 0 {
		v, n := binary.Uvarint(b)
		if n <= 0 || v >= uint64(limit) {
			d.fail()
			return
		}
		b = b[n:]
	}
}

func (d *decoder) bytes() []byte {
	n := d.count()
	b := d.b[:n:n]
	d.b = d.b[n:]
	if n == 0 {
		return nil
	}
	return b
}

func (d *decoder) strings() []string {
	n := d.count()
	out := make([]string, 0, n)
	for range n {
		out = append(out, string(d.bytes()))
	}
	return out
}

// Units returns all units of a prepared tree, sorted by source; nil for a tree
// that has been built, whose units are read one by one.
func (t *Tree) Units() []Unit {
	if t.db == nil {
		return nil
	}
	return t.db.Units()
}
