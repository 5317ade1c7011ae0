package elfobj

import (
	"bytes"
	"debug/elf"
	"math/rand/v2"
	"testing"
)

// FuzzRead holds that reading never panics, and that a relocatable file that
// was read is written and read again as the same object.
func FuzzRead(f *testing.F) {
	for _, data := range fixtures(f) {
		f.Add(data)
	}
	for _, o := range []*Object{sample(), manySections(3)} {
		data, err := o.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		if len(o.Symbols) > 0 { // as an image
			data = bytes.Clone(data)
			data[16] = byte(elf.ET_DYN)
			f.Add(data)
		}
	}
	f.Add(extended(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := Parse(data)
		viaReader, readErr := Read(bytes.NewReader(data), int64(len(data)))
		if (err == nil) != (readErr == nil) {
			t.Fatalf("Parse says %v, Read says %v", err, readErr)
		}
		if err != nil {
			return
		}
		if d := diff(o, viaReader); d != "" {
			t.Fatalf("Parse and Read differ:\n%s", d)
		}
		if o.Type != elf.ET_REL {
			return
		}
		if _, back := roundTrip(t, o); diff(o, back) != "" {
			t.Fatalf("read(write(x)) (-want +got):\n%s", diff(o, back))
		}
	})
}

// extended is a small file that uses every extended form of an index without
// need, as a reader must accept.
func extended(t testing.TB) []byte {
	t.Helper()
	text := &Section{Name: ".text", Type: elf.SHT_PROGBITS, Data: []byte{0x90}, Size: 1}
	o := &Object{Type: elf.ET_REL, Machine: elf.EM_X86_64, Sections: []*Section{
		text,
		{Name: ".symtab_shndx", Type: elf.SHT_PROGBITS, EntSize: wordSize, Data: []byte{0, 0, 0, 0, 1, 0, 0, 0}, Size: 8},
	}, Symbols: []*Symbol{{Name: "f", Section: text, Value: 1}}}
	data, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	e := &editor{data}
	e.shdr(0, func(h *elf.Section64) { h.Size, h.Link = 6, 5 })
	e.head(func(h *elf.Header64) { h.Shnum, h.Shstrndx = 0, uint16(elf.SHN_XINDEX) })
	e.shdr(2, func(h *elf.Section64) { h.Type, h.Link = uint32(elf.SHT_SYMTAB_SHNDX), 3 })
	table := e.contents(3)
	s := decodeSym((*[symSize]byte)(table[symSize:]))
	s.Shndx = uint16(elf.SHN_XINDEX)
	appendSym(table[symSize:symSize], s)
	return e.data
}

func TestReadExtendedWithoutNeed(t *testing.T) {
	text := &Section{Name: ".text", Type: elf.SHT_PROGBITS, Data: []byte{0x90}, Size: 1}
	want := &Object{Type: elf.ET_REL, Machine: elf.EM_X86_64,
		Sections: []*Section{text},
		Symbols:  []*Symbol{{Name: "f", Section: text, Value: 1}},
	}
	got, err := Parse(extended(t))
	if err != nil {
		t.Fatal(err)
	}
	if d := diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// What random bytes seldom do: small changes to single fields of headers,
// symbols and relocations, the same ones in every run.
func TestReadFieldMutations(t *testing.T) {
	const rounds = 20000
	rnd := rand.New(rand.NewPCG(1, 2))
	original, err := sample().Encode()
	if err != nil {
		t.Fatal(err)
	}
	e := &editor{bytes.Clone(original)}
	tables := [][]byte{
		e.data[16:ehdrSize],
		e.data[decodeEhdr((*[ehdrSize]byte)(e.data)).Shoff:],
		e.contents(sampleSymtab), e.contents(sampleRela), e.contents(sampleGroup),
	}
	accepted := 0
	for range rounds {
		copy(e.data, original)
		for range 1 + rnd.IntN(3) {
			mutate(tables[rnd.IntN(len(tables))], rnd)
		}
		o, err := Parse(e.data)
		if err != nil {
			continue
		}
		accepted++
		if o.Type != elf.ET_REL {
			continue
		}
		if _, back := roundTrip(t, o); diff(o, back) != "" {
			t.Fatalf("read(write(x)) (-want +got):\n%s", diff(o, back))
		}
	}
	if accepted == 0 || accepted == rounds {
		t.Errorf("%d of %d mutations were accepted: they test nothing", accepted, rounds)
	}
}

// mutate sets a 4-byte field of a table to a small number, a large one or a
// neighbour of what it was.
func mutate(table []byte, rnd *rand.Rand) {
	field := table[rnd.IntN(len(table)/4)*4:]
	switch rnd.IntN(3) {
	case 0:
		le.PutUint32(field, rnd.Uint32N(32))
	case 1:
		le.PutUint32(field, ^rnd.Uint32N(32))
	case 2:
		le.PutUint32(field, le.Uint32(field)+1-2*rnd.Uint32N(2))
	}
}
