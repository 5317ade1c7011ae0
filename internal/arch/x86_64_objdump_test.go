package arch

import (
	"bufio"
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// objdump runs objdump -d on an ELF file and calls line for each instruction:
// its address, its bytes and its text, and for each symbol with no bytes.
func objdump(t *testing.T, file string, line func(addr uint64, code []byte, text string)) {
	t.Helper()
	tool, err := exec.LookPath("objdump")
	if err != nil {
		t.Skip("objdump is not installed")
	}
	cmd := exec.Command(tool, "-d", "-w", "-z", "-j", ".text", file)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	sc := bufio.NewScanner(out)
	var code []byte
	for sc.Scan() {
		if strings.HasSuffix(sc.Text(), ">:") {
			line(0, nil, sc.Text())
			continue
		}
		f := strings.SplitN(sc.Text(), "\t", 3)
		if len(f) < 2 {
			continue
		}
		addr, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(f[0]), ":"), 16, 64)
		if err != nil {
			continue
		}
		code = code[:0]
		for b := range strings.FieldsSeq(f[1]) {
			v, err := strconv.ParseUint(b, 16, 8)
			if err != nil {
				t.Fatalf("objdump line %q: %v", sc.Text(), err)
			}
			code = append(code, byte(v))
		}
		line(addr, code, strings.Join(f[2:], ""))
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("objdump %s: %v", file, err)
	}
}

// lonePrefix tells whether objdump's line is no instruction but a prefix that
// it prints on a line of its own, or bytes that it cannot read.
func lonePrefix(text string) bool {
	f := strings.Fields(text)
	if len(f) == 0 || strings.Contains(text, "(bad)") {
		return true
	}
	switch last := f[len(f)-1]; last {
	case "cs", "ds", "es", "fs", "gs", "ss", "lock", "rep", "repz", "repnz", "data16", "addr32":
		return true
	default:
		return strings.HasPrefix(last, "rex")
	}
}

// compareObjdump decodes each symbol of a file's .text in sequence and compares
// the boundaries with objdump's. It returns the number of instructions.
func compareObjdump(t *testing.T, file string) (n int) {
	t.Helper()
	f, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sect := f.Section(".text")
	if sect == nil {
		t.Fatalf("%s has no .text", file)
	}
	text, err := sect.Data()
	if err != nil {
		t.Fatal(err)
	}
	const resync = -1
	at := resync // our next boundary, an offset into text
	errs := 0
	objdump(t, file, func(addr uint64, code []byte, asm string) {
		off := int(addr - sect.Addr)
		switch {
		case errs > 40:
			return
		case len(code) == 0: // a symbol
			at = resync
			return
		case lonePrefix(asm):
			at = resync
			return
		case at == resync:
			at = off
		}
		if at != off {
			t.Errorf("%s: %x: objdump has a boundary (% x %s), ours is at %x", file, addr, code, asm, sect.Addr+uint64(at))
			errs++
			at = off
		}
		end := off + len(code)
		for at < end { // objdump joins fwait with the x87 instruction behind it
			inst, ok := x86_64.Decode(text[at:])
			if !ok {
				t.Errorf("%s: %x: % x (%s): not decoded", file, addr, code, asm)
				errs++
				at = resync
				return
			}
			if at += inst.Len; code[0] != 0x9b {
				break
			}
		}
		n++
		if at != end {
			t.Errorf("%s: %x: % x (%s): %d bytes, want %d", file, addr, code, asm, at-off, end-off)
			errs++
			at = resync
		}
	})
	return n
}

// TestX86CasesAgainstObjdump checks the bytes of x86Cases themselves.
func TestX86CasesAgainstObjdump(t *testing.T) {
	var src strings.Builder
	for i, c := range x86Cases {
		fmt.Fprintf(&src, "c%d:\n", i)
		for _, b := range unhex(t, c.bytes) {
			fmt.Fprintf(&src, "\t.byte 0x%02x\n", b)
		}
	}
	if n := compareObjdump(t, assemble(t, src.String())); n < len(x86Cases)-2 {
		t.Errorf("%d instructions compared of %d", n, len(x86Cases))
	}
}

// assemble makes an object from assembly source.
func assemble(t *testing.T, src string) string {
	t.Helper()
	return gcc(t, "t.s", src)
}

// gcc compiles a source file, named for its language, to an object.
func gcc(t *testing.T, name, src string, args ...string) string {
	t.Helper()
	tool, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("gcc is not installed")
	}
	dir := t.TempDir()
	in, out := filepath.Join(dir, name), filepath.Join(dir, "out.o")
	if err := os.WriteFile(in, []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	if msg, err := exec.Command(tool, append(args, "-c", "-o", out, in)...).CombinedOutput(); err != nil {
		t.Skipf("gcc %v: %v\n%s", args, err, msg)
	}
	return out
}

// TestX86Compiled compares the boundaries in compiled code that uses switches,
// floating point, vectors, atomics and TLS.
func TestX86Compiled(t *testing.T) {
	const src = `
#include <stdint.h>
__thread int tls;
double poly(double x, long double y) { return x * x + y / 3.0L - (float)x; }
int pick(int i, int *p) {
	switch (i) {
	case 0: return *p; case 1: return p[7]; case 2: __builtin_trap();
	case 3: return __atomic_fetch_add(p, 5, 5); case 4: return tls++;
	case 5: return __builtin_popcount(*p); case 6: return (int)(0x1122334455667788 >> (p[1] & 31));
	case 7: return p[2] / 7 * p[3]; case 8: return pick(i - p[2], p);
	}
	return ((int (*)(int *))(intptr_t)p[0])(p);
}
void saxpy(float *restrict a, const float *restrict b, float k, int n) {
	for (int i = 0; i < n; i++) a[i] += k * b[i];
}
uint64_t hash(const uint8_t *s, uint64_t n) {
	uint64_t h = 0xcbf29ce484222325;
	while (n--) h = (h ^ *s++) * 0x100000001b3, h = h << 13 | h >> 51;
	return h;
}
uint16_t small(uint16_t *p) { *p = 0x1234; p[4] ^= 0x4321; return __atomic_exchange_n(p, 3, 5); }
`
	for _, args := range [][]string{
		{"-O0"}, {"-O2", "-fcf-protection=full"}, {"-O3", "-mavx2", "-mfma", "-mbmi2"},
		{"-O3", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mprefer-vector-width=512"},
		{"-O2", "-fno-pic", "-mcmodel=kernel", "-mno-sse", "-mno-80387", "-DNOFP"}, {"-Os", "-fPIC"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			src := src
			if args[len(args)-1] == "-DNOFP" {
				src = strings.ReplaceAll(src, "double poly(double x, long double y) { return x * x + y / 3.0L - (float)x; }", "")
				src = src[:strings.Index(src, "void saxpy")] + src[strings.Index(src, "uint64_t hash"):]
			}
			if n := compareObjdump(t, gcc(t, "t.c", src, args...)); n < 60 {
				t.Errorf("only %d instructions compared", n)
			}
		})
	}
}

func TestX86Libc(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	const libc = "/lib/x86_64-linux-gnu/libc.so.6"
	if _, err := os.Stat(libc); err != nil {
		t.Skip("libc: ", err)
	}
	n := compareObjdump(t, libc)
	t.Logf("%d instructions", n)
	if n < 100_000 {
		t.Errorf("only %d instructions compared", n)
	}
}

func TestX86Vmlinux(t *testing.T) {
	file := os.Getenv("KLPC_TEST_VMLINUX")
	if file == "" {
		t.Skip("KLPC_TEST_VMLINUX does not name an uncompressed vmlinux")
	}
	n := compareObjdump(t, file)
	t.Logf("%d instructions", n)
	if n < 1_000_000 {
		t.Errorf("only %d instructions compared", n)
	}
}

// TestX86OpcodeSpace compares lengths with objdump's over the legacy maps with
// each mandatory prefix and over VEX and EVEX, wherever both know an
// instruction.
func TestX86OpcodeSpace(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	const slot = 24 // bytes; the rest of a slot is nops, so that objdump falls into step
	var blob bytes.Buffer
	for _, head := range x86Heads() {
		for op := range 256 {
			for _, modrm := range []byte{0x03, 0x5d, 0x84, 0x05, 0xc1, 0x14, 0x2a, 0xf0} {
				code := append(head[:len(head):len(head)], byte(op), modrm, 0x25)
				blob.Write(append(code, bytes.Repeat([]byte{0x90}, slot-len(code))...))
			}
		}
	}
	bin := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(bin, blob.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	file := assemble(t, fmt.Sprintf(".incbin %q\n", bin))
	n := 0
	objdump(t, file, func(addr uint64, code []byte, asm string) {
		if len(code) == 0 || addr%slot != 0 || lonePrefix(asm) {
			return
		}
		inst, ok := x86_64.Decode(blob.Bytes()[addr:])
		if !ok || x86KnownDifference(code) {
			return
		}
		n++
		if inst.Len != len(code) {
			t.Errorf("% x (%s): %d bytes, want %d", blob.Bytes()[addr:addr+x86MaxLen], asm, inst.Len, len(code))
		}
	})
	t.Logf("%d instructions", n)
	if n < 20_000 {
		t.Errorf("only %d instructions compared", n)
	}
}

// x86Heads are the bytes before the opcode that TestX86OpcodeSpace tries.
func x86Heads() (heads [][]byte) {
	for pp, prefix := range [][]byte{nil, {0x66}, {0xf3}, {0xf2}} {
		for _, escape := range [][]byte{nil, {0x48}, {0x0f}, {0x0f, 0x38}, {0x0f, 0x3a}} {
			heads = append(heads, append(prefix[:len(prefix):len(prefix)], escape...))
		}
		for m := byte(1); m <= 3; m++ {
			heads = append(heads, []byte{0xc4, 0xe0 | m, 0x78 | byte(pp)}, []byte{0xc4, 0xe0 | m, 0xf8 | byte(pp)})
		}
		for _, m := range []byte{1, 2, 3, 5, 6} {
			heads = append(heads, []byte{0x62, 0xf0 | m, 0x7c | byte(pp), 0x48}, []byte{0x62, 0xf0 | m, 0xfc | byte(pp), 0x48})
		}
	}
	return heads
}

// x86KnownDifference tells whether objdump is known to read an instruction
// differently: near branches with 66, and fwait, which it joins with what
// follows.
func x86KnownDifference(code []byte) bool {
	for len(code) > 1 && bytes.IndexByte([]byte{0x48, 0x66, 0xf2, 0xf3}, code[0]) >= 0 {
		code = code[1:]
	}
	return code[0] == 0x9b || code[0] == 0xe8 || code[0] == 0xe9 ||
		len(code) > 1 && code[0] == 0x0f && code[1]&0xf0 == 0x80
}
