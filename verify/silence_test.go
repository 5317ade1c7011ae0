package verify_test

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/target"
	"github.com/klpc/klpc/verify"
)

// branches has static branches on a tracepoint of its module, on one of another,
// and on another key, as Linux 6.1 writes them.
const branches = `
	.text
f:	jmp own1
	jmp other
own1:	jmp key
	jmp far
	nop
other:	nop
key:	ret
	.section .text.far, "ax"
far:	nop
	.macro entry code target name
	.long \code - .
	.long \target - .
	.quad \name + 8 - .
	.endm
	.section __jump_table, "aw"
	entry f own1 __tracepoint_own
	entry f+2 other __tracepoint_other
	entry own1 key other_key
	entry f+6 far __tracepoint_own
	.section .modinfo, "a"
	.asciz "name=m"
	.data
	.globl __tracepoint_own
__tracepoint_own:
	.quad 0
`

func assemble(t *testing.T, text string) *elfobj.Object {
	t.Helper()
	if _, err := exec.LookPath("as"); err != nil {
		t.Skip("needs as, which is not installed")
	}
	out := filepath.Join(t.TempDir(), "x.o")
	cmd := exec.Command("as", "-o", out)
	cmd.Stdin = bytes.NewReader([]byte(text))
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("as: %v\n%s", err, said)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	o, err := elfobj.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func encoded(t *testing.T, o *elfobj.Object) []byte {
	t.Helper()
	data, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Only the branches on the module's own tracepoints go; their jumps are nops.
func TestSilence(t *testing.T) {
	o := assemble(t, branches)
	before := encoded(t, o)
	got, err := verify.Silence(o, &target.Module{Object: o})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, encoded(t, o)) {
		t.Error("the object itself has changed")
	}
	code := []byte{
		0x66, 0x90, // a nop for the jump to own1
		0xeb, 0x08, // to other
		0xeb, 0x07, // to key
		0x0f, 0x1f, 0x44, 0x00, 0x00, // a nop for the jump to far
		0x90, 0x90, 0xc3,
	}
	if text := got.Section(".text").Data; !bytes.Equal(text, code) {
		t.Errorf("the code is % x, want % x", text, code)
	}
	if size := got.Section("__jump_table").Size; size != 32 {
		t.Errorf("the table has %d bytes, want 32", size)
	}
	var keys []string
	for _, s := range got.Sections {
		switch {
		case s.Type != elf.SHT_RELA:
		case s.Target.Name == ".text" && len(s.Relocs) > 0:
			t.Errorf("a silenced jump still has a relocation: %+v", s.Relocs)
		case s.Target.Name == "__jump_table":
			for i, r := range s.Relocs {
				if want := uint64([]int{0, 4, 8, 16, 20, 24}[i%6]); r.Off != want || i > 5 {
					t.Errorf("relocation %d is at %d, want %d", i, r.Off, want)
				}
				if r.Off%16 == 8 {
					keys = append(keys, r.Sym.Name)
				}
			}
		}
	}
	if len(keys) != 2 || keys[0] != "__tracepoint_other" || keys[1] != "other_key" {
		t.Errorf("keys %v are left", keys)
	}
}

// Where the module has no such tracepoint, nothing changes.
func TestSilenceNothing(t *testing.T) {
	o := assemble(t, branches)
	other := assemble(t, "\t.data\nx:\t.quad 0\n")
	got, err := verify.Silence(o, &target.Module{Object: other})
	if err != nil || got != o {
		t.Errorf("got %v, %v", got != o, err)
	}
}
