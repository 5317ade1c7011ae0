package target

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

// packers compress as Kbuild does, by the names of formats. bzip2 has no writer
// in Go and has a fixture instead.
func packers(t testing.TB) map[string]func([]byte) []byte {
	return map[string]func([]byte) []byte{
		"gzip": func(b []byte) []byte {
			var out bytes.Buffer
			w := gzip.NewWriter(&out)
			must(t, w.Write, b)
			mustClose(t, w.Close)
			return out.Bytes()
		},
		"xz": func(b []byte) []byte {
			var out bytes.Buffer
			w, err := xz.WriterConfig{CheckSum: xz.CRC32, BlockSize: 1 << 16}.NewWriter(&out)
			if err != nil {
				t.Fatal(err)
			}
			must(t, w.Write, b)
			mustClose(t, w.Close)
			return out.Bytes()
		},
		"zstd": func(b []byte) []byte {
			w, err := zstd.NewWriter(nil)
			if err != nil {
				t.Fatal(err)
			}
			return w.EncodeAll(b, nil)
		},
		"lz4": func(b []byte) []byte {
			out := []byte("\x02\x21\x4c\x18")
			for chunk := range slices.Chunk(b, lz4BlockSize) {
				packed := make([]byte, lz4.CompressBlockBound(len(chunk)))
				n, err := (&lz4.CompressorHC{Level: lz4.Level9}).CompressBlock(chunk, packed)
				if err != nil || n == 0 {
					t.Fatalf("lz4: %d bytes, %v", n, err)
				}
				out = binary.LittleEndian.AppendUint32(out, uint32(n))
				out = append(out, packed[:n]...)
			}
			return out
		},
		"lzma": func(b []byte) []byte {
			var out bytes.Buffer
			w, err := lzma.NewWriter(&out)
			if err != nil {
				t.Fatal(err)
			}
			must(t, w.Write, b)
			mustClose(t, w.Close)
			return out.Bytes()
		},
	}
}

func must(t testing.TB, write func([]byte) (int, error), b []byte) {
	t.Helper()
	if _, err := write(b); err != nil {
		t.Fatal(err)
	}
}

func mustClose(t testing.TB, end func() error) {
	t.Helper()
	if err := end(); err != nil {
		t.Fatal(err)
	}
}

// bootable is a small kernel with all that the readers look for.
func bootable() *Image {
	e := encoder{order: order64, meaning: offsetPercpu}
	symbols := kernelSymbols(300, true)
	end := len(symbols) - 1
	symbols = slices.Insert(symbols, end,
		Symbol{"__start_mcount_loc", testEnd - 0x2000, 'T'}, Symbol{"__stop_mcount_loc", testEnd - 0x2000 + 32, 'T'})
	im := tablesImage(&e, symbols)
	im.tables = nil
	im.Sections[0].Size, im.Sections[0].Data = 0x100, noise(0x100)
	sites := make([]byte, 0, 32)
	for _, site := range []uint64{testText + 0x40, 0, testText + 4, testText + 0xff} {
		sites = binary.LittleEndian.AppendUint64(sites, site)
	}
	im.Sections = append(im.Sections,
		ImageSection{Name: ".init.data", Addr: testEnd - 0x2000, Size: 32, Flags: elf.SHF_ALLOC | elf.SHF_WRITE, Data: sites},
		ImageSection{Name: ".BTF", Addr: testEnd - 0x3000, Size: 4, Flags: elf.SHF_ALLOC, Data: []byte{0x9f, 0xeb, 1, 0}})
	return im
}

func TestReadImage(t *testing.T) {
	want := bootable()
	vmlinux := vmlinuxFile(t, want)
	inputs := map[string][]byte{
		"vmlinux":              vmlinux,
		"bzImage uncompressed": bzImage(vmlinux),
	}
	for name, pack := range packers(t) {
		packed := pack(vmlinux)
		inputs["vmlinux "+name] = packed
		if name == "gzip" {
			inputs["bzImage "+name] = bzImage(packed)
			continue
		}
		inputs["bzImage "+name] = bzImage(sized(packed, len(vmlinux)))
	}
	for name, data := range inputs {
		t.Run(name, func(t *testing.T) {
			got, err := ReadImage(data)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want.Sections, got.Sections); diff != "" {
				t.Errorf("sections (-want +got):\n%s", diff)
			}
			if got.Machine != elf.EM_X86_64 {
				t.Errorf("machine %v", got.Machine)
			}
			if _, err := got.Kallsyms(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestReadImageRefusals(t *testing.T) {
	vmlinux := vmlinuxFile(t, bootable())
	pack := packers(t)
	zstdPayload := pack["zstd"](vmlinux)
	old := bzImage(vmlinux)
	binary.LittleEndian.PutUint16(old[bzVersion:], 0x0207)
	arm := make([]byte, 0x400)
	copy(arm[0x38:], "ARM\x64")
	whole := bzImage(sized(zstdPayload, len(vmlinux)))
	for _, test := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "read kernel image: neither an x86 bzImage nor an ELF vmlinux"},
		{"text", []byte(systemMap), "neither an x86 bzImage nor an ELF vmlinux"},
		{"arm64", arm, "neither an x86 bzImage nor an ELF vmlinux: it is an arm64 Image, pass the vmlinux"},
		{"zboot", []byte("MZ\x00\x00zimg"), "it is an EFI zboot image"},
		{"old protocol", old, "bzImage: boot protocol 2.07 has no payload field, 2.08 is needed"},
		{"truncated header", whole[:0x220], "bzImage: truncated setup header"},
		{"truncated payload", whole[:len(whole)/2], "bzImage: truncated: the payload of"},
		{"wrong size", bzImage(sized(zstdPayload, len(vmlinux)+1)), "decompress zstd:"},
		{"no size", bzImage([]byte("BZh")), "decompress bzip2: payload of 3 bytes is too short"},
		{"lzo", bzImage(sized([]byte("\x89LZO\x00\r\n\x1a\n"), 1)), "decompress lzo: lzo is not supported: unpack the image with scripts/extract-vmlinux"},
		{"not a kernel inside", bzImage(sized(pack["zstd"]([]byte("hello")), 5)), "read kernel image: vmlinux:"},
		{"truncated ELF", vmlinux[:100], "read kernel image: vmlinux:"},
		{"relocatable", elfFile(t, elf.ET_REL, []elfSection{{name: ".text", typ: elf.SHT_PROGBITS, flags: elf.SHF_ALLOC}}, nil),
			"vmlinux: type ET_REL is not a linked image"},
		{"nothing loaded", elfFile(t, elf.ET_EXEC, nil, nil), "vmlinux: no loaded sections"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := ReadImage(test.data)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v lacks %q", err, test.want)
			}
		})
	}
}

func TestDecompressTruncated(t *testing.T) {
	plain := append(noise(3000), make([]byte, 3000)...)
	for name, pack := range packers(t) {
		packed := pack(plain)
		if out, err := Decompress(packed); err != nil || !bytes.Equal(out, plain) {
			t.Errorf("%s: not the same again: %v", name, err)
		}
		_, err := Decompress(packed[:len(packed)/2])
		if err == nil || !strings.HasPrefix(err.Error(), "decompress "+name+": ") {
			t.Errorf("%s: cut in half: %v", name, err)
		}
	}
}

func TestDecompressBounds(t *testing.T) {
	const limit = 10000
	for name, pack := range packers(t) {
		packed := pack(make([]byte, limit+1))
		if _, err := formatOf(packed).unpack(packed, limit); !errors.Is(err, errTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDecompressBzip2(t *testing.T) {
	// printf hello | bzip2, version 1.0.8
	packed, err := base64.StdEncoding.DecodeString("QlpoOTFBWSZTWRkxZT0AAACBAAJEoAAhmmgzTQczi7kinChIDJiynoA=")
	if err != nil {
		t.Fatal(err)
	}
	out, err := Decompress(packed)
	if err != nil || string(out) != "hello" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestDecompressOther(t *testing.T) {
	if out, err := Decompress([]byte("plain")); err != nil || string(out) != "plain" {
		t.Errorf("%q, %v", out, err)
	}
}

// branches makes bytes full of what the x86 filter looks for: branches and
// their likely operands, in every distance from each other.
func branches(n int) []byte {
	letters := []byte{0xe8, 0xe9, 0x00, 0xff, 0x90, 0x01, 0xe8, 0x00}
	b := noise(n)
	for i := range b {
		b[i] = letters[b[i]>>5]
	}
	return b
}

func TestDecompressXZWithX86Filter(t *testing.T) {
	// xz --check=crc64 --x86 --lzma2=preset=9e, version 5.4.1, of branches(6000)
	packed, err := os.ReadFile("testdata/branches-xz-5.4.1.xz")
	if err != nil {
		t.Fatal(err)
	}
	out, err := Decompress(packed)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out, branches(6000)) {
		t.Error("not the same again")
	}
	damaged := slices.Clone(packed)
	damaged[len(damaged)/2] ^= 1
	if _, err := Decompress(damaged); err == nil {
		t.Error("a damaged file passes")
	}
}

func TestXZRefusals(t *testing.T) {
	good := packers(t)["xz"]([]byte("some text"))
	edit := func(change func(b []byte)) []byte {
		b := slices.Clone(good)
		change(b)
		return b
	}
	for _, test := range []struct {
		name string
		data []byte
		want string
	}{
		{"only the magic", good[:6], "decompress xz: truncated"},
		{"stream header", edit(func(b []byte) { b[8]++ }), "stream header: checksum does not match"},
		{"block header", edit(func(b []byte) { b[14]++ }), "block at byte 12: block header: checksum does not match"},
		{"content", edit(func(b []byte) { b[bytes.Index(b, []byte("some"))]++ }), "checksum does not match"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := Decompress(test.data); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v lacks %q", err, test.want)
			}
		})
	}
}

func TestXZFilters(t *testing.T) {
	for _, test := range []struct {
		name string
		id   uint64
		prop []byte
		last bool
		want string
	}{
		{"arm64", 0x0a, nil, false, "filter 0xa is not supported"},
		{"x86 last", xzFilterX86, nil, true, "filter 0x4 is not supported"},
		{"x86 with an offset", xzFilterX86, []byte{1, 0, 0, 0}, false, "filter 0x4 is not supported"},
		{"lzma2 first", xzFilterLZMA2, []byte{20}, false, "filter 0x21 is not supported"},
		{"dictionary", xzFilterLZMA2, []byte{41}, true, "filter 0x21 is not supported"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var b xzBlock
			if err := b.addFilter(test.id, test.prop, test.last); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v lacks %q", err, test.want)
			}
		})
	}
}

func TestBytes(t *testing.T) {
	im, err := ReadImage(vmlinuxFile(t, bootable()))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		addr uint64
		n    int
		want []byte
		ok   bool
	}{
		{"start", testText, 3, noise(3), true},
		{"inside", testText + 0x10, 2, noise(0x12)[0x10:], true},
		{"to the end", testText + 0xff, 1, noise(0x100)[0xff:], true},
		{"beyond the end", testText + 0xff, 2, nil, false},
		{"none at the end", testText + 0x100, 0, []byte{}, true},
		{"before", testText - 1, 1, nil, false},
		{"bss", testEnd - 0x800, 1, nil, false},
		{"nowhere", 0x1000, 1, nil, false},
		{"top", ^uint64(0), 1, nil, false},
		{"negative", testText, -1, nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, ok := im.Bytes(test.addr, test.n)
			if ok != test.ok || !cmp.Equal(test.want, got) {
				t.Errorf("%x, %v instead of %x, %v", got, ok, test.want, test.ok)
			}
		})
	}
	if diff := cmp.Diff([]byte{0x9f, 0xeb, 1, 0}, im.BTF()); diff != "" {
		t.Errorf("BTF: %s", diff)
	}
	if im.Section(".absent") != nil {
		t.Error("a section that is not there")
	}
}

func TestFtraceSites(t *testing.T) {
	im, err := ReadImage(vmlinuxFile(t, bootable()))
	if err != nil {
		t.Fatal(err)
	}
	table, err := im.Kallsyms()
	if err != nil {
		t.Fatal(err)
	}
	sites, err := im.FtraceSites(table)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]uint64{testText + 4, testText + 0x40, testText + 0xff}, sites); diff != "" {
		t.Error(diff)
	}
}

func TestFtraceSitesRefusals(t *testing.T) {
	im := bootable()
	im, err := ReadImage(vmlinuxFile(t, im))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, text, want string }{
		{"no table", "", "ftrace sites: symbol __start_mcount_loc not found"},
		{"two tables", "ffffffff82ffe000 T __start_mcount_loc\nffffffff82ffe000 T __start_mcount_loc\n", "symbol __start_mcount_loc exists 2 times"},
		{"size", "ffffffff82ffe000 T __start_mcount_loc\nffffffff82ffe004 T __stop_mcount_loc\n", "ftrace sites: bad bounds"},
		{"beyond", "ffffffff82ffe000 T __start_mcount_loc\nffffffff82ffe028 T __stop_mcount_loc\n", "the image has no bytes at"},
		{"not code", "ffffffff82000000 T __start_mcount_loc\nffffffff82001008 T __stop_mcount_loc\n", "is not in executable code"},
	} {
		t.Run(test.name, func(t *testing.T) {
			table, err := ReadSystemMap(strings.NewReader("ffffffff81000000 T _text\n" + test.text + "ffffffff83000000 B _end\n"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := im.FtraceSites(table); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v lacks %q", err, test.want)
			}
		})
	}
}

func FuzzReadImage(f *testing.F) {
	small := elfFile(f, elf.ET_EXEC, []elfSection{
		{name: ".text", typ: elf.SHT_PROGBITS, flags: elf.SHF_ALLOC | elf.SHF_EXECINSTR, addr: testText, data: noise(64)},
		{name: ".bss", typ: elf.SHT_NOBITS, flags: elf.SHF_ALLOC, addr: testEnd, size: 64},
	}, nil)
	f.Add(small)
	f.Add(bzImage(small))
	for _, pack := range packers(f) {
		f.Add(pack(small))
		f.Add(bzImage(sized(pack(small), len(small))))
	}
	if branchy, err := os.ReadFile("testdata/branches-xz-5.4.1.xz"); err == nil {
		f.Add(branchy)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		im, err := ReadImage(data)
		if err != nil {
			return
		}
		for _, s := range im.Sections {
			if _, ok := im.Bytes(s.Addr, len(s.Data)+1); ok && len(im.Sections) == 1 {
				t.Fatalf("%s: more bytes than it has", s.Name)
			}
		}
		if table, err := im.Kallsyms(); err == nil {
			_, _ = im.FtraceSites(table)
		}
	})
}
