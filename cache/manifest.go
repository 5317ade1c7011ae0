package cache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// place is a file with a content, or a directory with certain names in it.
//
// A directory counts because a new file in it may be what an include finds
// first from then on, while no file that was read has changed. Of its names
// only those count that an include of one of the files could be made of
// (components), so that editors and builds may come and go. What remains
// unnoticed: a new file that is reached by ".." from a searched directory, as
// in #include <../lib/x.h>.
type place struct {
	name   string // as by View.Name; a directory's ends with '/'
	digest digest // of the content, or of the names
	stamp  stamp  // 0: always look
}

// alternative is one way in which a command has been compiled.
type alternative struct {
	places []uint32 // in manifest.places: the files read, further inputs, directories
	deps   int      // how many of them are files that the compiler has named
	result digest   // of the result's file
	small  []byte   // the result itself; nil: see result
}

// manifest is what is known of one command. Encoded form, with unsigned
// varints (encoding/binary):
//
//	number of names, then each: length, bytes
//	number of places, then each: number of its name, digest, stamp (8 bytes, little-endian)
//	number of alternatives, oldest first, then each: number of places, their
//	  numbers, number of deps, 0 and the result's digest, or its length plus 1
//	  and the result itself
type manifest struct {
	places       []place
	alternatives []alternative
}

// maxAlternatives bounds a manifest; the oldest go.
const maxAlternatives = 16

// names are the files that an alternative's compile read.
func (m *manifest) names(a alternative) []string {
	out := make([]string, a.deps)
	for i, p := range a.places[:a.deps] {
		out[i] = m.places[p].name
	}
	return out
}

// with returns a manifest with one more alternative, the newest. One of the
// same places is replaced.
func (m *manifest) with(a alternative, places []place) *manifest {
	out := &manifest{}
	type content struct {
		name   string
		digest digest
	}
	numbers := map[content]uint32{}
	add := func(a alternative, places []place) {
		a.places = make([]uint32, len(places))
		for i, p := range places {
			id := content{p.name, p.digest}
			n, ok := numbers[id]
			if !ok {
				n = uint32(len(out.places))
				numbers[id] = n
				out.places = append(out.places, p)
			}
			if p.stamp != 0 {
				out.places[n].stamp = p.stamp
			}
			a.places[i] = n
		}
		out.alternatives = append(out.alternatives, a)
	}
	old := slices.DeleteFunc(slices.Clone(m.alternatives), func(o alternative) bool {
		return slices.EqualFunc(m.placesOf(o), places, func(x, y place) bool { return x.name == y.name && x.digest == y.digest })
	})
	for _, o := range old[max(0, len(old)+1-maxAlternatives):] {
		add(o, m.placesOf(o))
	}
	add(a, places)
	return out
}

func (m *manifest) placesOf(a alternative) []place {
	out := make([]place, len(a.places))
	for i, p := range a.places {
		out[i] = m.places[p]
	}
	return out
}

func (m *manifest) encode() []byte {
	var b []byte
	number := func(n int) { b = binary.AppendUvarint(b, uint64(n)) }
	numbers := map[string]int{}
	var names []string
	for _, p := range m.places {
		if _, ok := numbers[p.name]; !ok {
			numbers[p.name] = len(names)
			names = append(names, p.name)
		}
	}
	number(len(names))
	for _, n := range names {
		number(len(n))
		b = append(b, n...)
	}
	number(len(m.places))
	for _, p := range m.places {
		number(numbers[p.name])
		b = append(b, p.digest[:]...)
		b = binary.LittleEndian.AppendUint64(b, uint64(p.stamp))
	}
	number(len(m.alternatives))
	for _, a := range m.alternatives {
		number(len(a.places))
		for _, p := range a.places {
			number(int(p))
		}
		number(a.deps)
		if a.small == nil {
			number(0)
			b = append(b, a.result[:]...)
			continue
		}
		number(len(a.small) + 1)
		b = append(b, a.small...)
	}
	return b
}

var errManifest = errors.New("not a manifest")

func decodeManifest(b []byte) (*manifest, error) {
	d := decoder{b: b}
	names := make([]string, d.count())
	for i := range names {
		names[i] = string(d.bytes(d.count()))
	}
	m := &manifest{places: make([]place, d.count())}
	for i := range m.places {
		if n := d.index(len(names)); n >= 0 {
			m.places[i].name = names[n]
		}
		copy(m.places[i].digest[:], d.bytes(len(digest{})))
		if s := d.bytes(8); s != nil {
			m.places[i].stamp = stamp(binary.LittleEndian.Uint64(s))
		}
	}
	m.alternatives = make([]alternative, d.count())
	for i := range m.alternatives {
		a := &m.alternatives[i]
		a.places = make([]uint32, d.count())
		for j := range a.places {
			a.places[j] = uint32(max(d.index(len(m.places)), 0))
		}
		a.deps = max(d.index(len(a.places)+1), 0)
		if n := d.count(); n == 0 {
			copy(a.result[:], d.bytes(len(digest{})))
		} else {
			a.small = append([]byte{}, d.bytes(n-1)...)
		}
	}
	if d.failed || len(d.b) > 0 {
		return nil, errManifest
	}
	return m, nil
}

// decoder reads an encoded manifest; after a failure it returns zeros.
type decoder struct {
	b      []byte
	failed bool
}

func (d *decoder) number() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.failed = true
		d.b = nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads the number of things that follow, each of at least one byte.
func (d *decoder) count() int {
	v := d.number()
	if v > uint64(len(d.b))+1 {
		d.failed = true
		return 0
	}
	return int(v)
}

// index reads a number below limit; -1 after a failure.
func (d *decoder) index(limit int) int {
	v := d.number()
	if d.failed || v >= uint64(limit) {
		d.failed = true
		return -1
	}
	return int(v)
}

func (d *decoder) bytes(n int) []byte {
	if n > len(d.b) {
		d.failed = true
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

// verdict is what a lookup has found of a place.
type verdict uint8

const (
	unseen verdict = iota
	same
	other
)

// lookup compares a manifest with the files as they are. Each place is looked
// at once, whatever the number of alternatives that it is in.
type lookup struct {
	files    *files
	command  Command
	manifest *manifest

	seen  []verdict // by place, files only: names count differently for each alternative
	fresh []stamp   // by place: newer stamps of what is the same; 0: none
}

// holds tells whether everything is as it was for an alternative.
func (l *lookup) holds(a alternative) bool {
	var among map[string]bool
	for _, p := range a.places {
		pl := &l.manifest.places[p]
		if dir, ok := strings.CutSuffix(pl.name, "/"); ok {
			if !l.sameNames(p, dir, func() map[string]bool {
				if among == nil {
					among = l.components(a)
				}
				return among
			}) {
				return false
			}
			continue
		}
		if l.seen[p] == unseen {
			l.seen[p] = l.compare(p)
		}
		if l.seen[p] == other {
			return false
		}
	}
	return true
}

func (l *lookup) components(a alternative) map[string]bool {
	var names []string
	for _, p := range a.places {
		if n := l.manifest.places[p].name; !strings.HasSuffix(n, "/") {
			names = append(names, n)
		}
	}
	return components(names, l.command.searched())
}

// compare compares a file's content.
func (l *lookup) compare(p uint32) verdict {
	want := &l.manifest.places[p]
	at := l.command.View.path(want.name)
	var st unix.Stat_t
	if unix.Stat(at, &st) != nil {
		return other
	}
	if want.stamp != 0 && stampOf(&st) == want.stamp {
		return same
	}
	t, err := l.files.text(at, &st)
	if err != nil || !bytes.Equal(t.digest[:], want.digest[:]) {
		return other
	}
	l.fresh[p] = t.stamp
	return same
}

// sameNames compares the names in a directory.
func (l *lookup) sameNames(p uint32, dir string, among func() map[string]bool) bool {
	want := &l.manifest.places[p]
	at := l.command.View.path(dir)
	var st unix.Stat_t
	if unix.Stat(at, &st) != nil {
		return want.digest == nothing
	}
	if want.stamp != 0 && stampOf(&st) == want.stamp {
		return true
	}
	list, err := l.files.list(at, &st)
	if err != nil || list.restricted(among()) != want.digest {
		return false
	}
	l.fresh[p] = list.stamp
	return true
}
