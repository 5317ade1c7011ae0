package arch

import (
	"bytes"
	"debug/elf"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// x86Case is one instruction: its bytes, how objdump writes it, and what
// Decode must say besides Len, which is the number of bytes.
type x86Case struct {
	bytes, asm string
	want       Inst
}

func imm(off, size int) Inst { return Inst{ImmOff: off, ImmSize: size} }
func disp(off int) Inst      { return Inst{DispOff: off} }
func rel(f Flow, off, size int) Inst {
	return Inst{Flow: f, RelOff: off, RelSize: size}
}

var x86Cases = []x86Case{
	// One byte, no operands.
	{"90", "nop", Inst{}},
	{"f4", "hlt", Inst{}},
	{"cc", "int3", Inst{}},
	{"f1", "int1", Inst{}},
	{"9b", "fwait", Inst{}},
	{"9c", "pushf", Inst{}},
	{"55", "push %rbp", Inst{}},
	{"41 5c", "pop %r12", Inst{}},
	{"48 98", "cltq", Inst{}},
	{"c9", "leave", Inst{}},
	{"ec", "in (%dx),%al", Inst{}},
	{"d7", "xlat %ds:(%rbx)", Inst{}},
	{"f3 90", "pause", Inst{}},
	{"f3 a4", "rep movsb %ds:(%rsi),%es:(%rdi)", Inst{}},
	{"f3 48 ab", "rep stos %rax,%es:(%rdi)", Inst{}},
	{"66 90", "xchg %ax,%ax", Inst{}},
	{"66 66 2e 0f 1f 84 00 00 00 00 00", "data16 cs nopw 0x0(%rax,%rax,1)", Inst{}},

	// ModRM, SIB and displacements.
	{"89 c3", "mov %eax,%ebx", Inst{}},
	{"8b 00", "mov (%rax),%eax", Inst{}},
	{"8b 45 fc", "mov -0x4(%rbp),%eax", Inst{}},
	{"8b 80 00 01 00 00", "mov 0x100(%rax),%eax", Inst{}},
	{"8b 04 24", "mov (%rsp),%eax", Inst{}},
	{"8b 44 24 08", "mov 0x8(%rsp),%eax", Inst{}},
	{"8b 84 24 00 01 00 00", "mov 0x100(%rsp),%eax", Inst{}},
	{"8b 04 25 10 00 00 00", "mov 0x10,%eax: SIB without base, not RIP-relative", Inst{}},
	{"8b 04 c5 00 00 00 00", "mov 0x0(,%rax,8),%eax", Inst{}},
	{"8b 44 45 00", "mov 0x0(%rbp,%rax,2),%eax", Inst{}},
	{"41 8b 45 00", "mov 0x0(%r13),%eax", Inst{}},
	{"43 8b 44 25 00", "mov 0x0(%r13,%r12,1),%eax", Inst{}},
	{"41 8b 04 24", "mov (%r12),%eax: r12 needs SIB like rsp", Inst{}},
	{"49 8b 05 10 00 00 00", "rex.WB mov 0x10(%rip),%rax: REX.B does not undo RIP", disp(3)},
	{"48 8b 05 10 00 00 00", "mov 0x10(%rip),%rax", disp(3)},
	{"67 8b 05 10 00 00 00", "mov 0x10(%eip),%eax", disp(3)},
	{"67 8b 00", "mov (%eax),%eax: no 16-bit addressing", Inst{}},
	{"67 8b 46 04", "mov 0x4(%esi),%eax", Inst{}},
	{"65 48 8b 04 25 28 00 00 00", "mov %gs:0x28,%rax", Inst{}},
	{"65 48 8b 05 00 00 00 00", "mov %gs:0x0(%rip),%rax", disp(4)},
	{"48 8d 3d 00 00 00 00", "lea 0x0(%rip),%rdi", disp(3)},
	{"48 63 d0", "movslq %eax,%rdx", Inst{}},
	{"8c d8", "mov %ds,%eax", Inst{}},
	{"8e d8", "mov %eax,%ds", Inst{}},
	{"8f 00", "pop (%rax)", Inst{}},

	// Immediates.
	{"04 01", "add $0x1,%al", imm(1, 1)},
	{"05 01 00 00 00", "add $0x1,%eax", imm(1, 4)},
	{"66 05 01 00", "add $0x1,%ax", imm(2, 2)},
	{"48 05 01 00 00 00", "add $0x1,%rax", imm(2, 4)},
	{"66 48 05 01 00 00 00", "data16 add $0x1,%rax: REX.W overrules 66", imm(3, 4)},
	{"83 e4 f0", "and $0xfffffff0,%esp", imm(2, 1)},
	{"81 ec 00 01 00 00", "sub $0x100,%esp", imm(2, 4)},
	{"66 81 ec 00 01", "sub $0x100,%sp", imm(3, 2)},
	{"80 3d 10 00 00 00 00", "cmpb $0x0,0x10(%rip)", Inst{DispOff: 2, ImmOff: 6, ImmSize: 1}},
	{"48 c7 05 10 00 00 00 01 00 00 00", "movq $0x1,0x10(%rip)", Inst{DispOff: 3, ImmOff: 7, ImmSize: 4}},
	{"66 c7 05 10 00 00 00 01 00", "movw $0x1,0x10(%rip)", Inst{DispOff: 3, ImmOff: 7, ImmSize: 2}},
	{"c6 00 01", "movb $0x1,(%rax)", imm(2, 1)},
	{"6a 01", "push $0x1", imm(1, 1)},
	{"68 00 00 00 00", "push $0x0", imm(1, 4)},
	{"66 68 01 00", "pushw $0x1", imm(2, 2)},
	{"6b c0 0a", "imul $0xa,%eax,%eax", imm(2, 1)},
	{"69 c0 00 01 00 00", "imul $0x100,%eax,%eax", imm(2, 4)},
	{"66 69 c0 00 01", "imul $0x100,%ax,%ax", imm(3, 2)},
	{"a8 01", "test $0x1,%al", imm(1, 1)},
	{"a9 01 00 00 00", "test $0x1,%eax", imm(1, 4)},
	{"b0 01", "mov $0x1,%al", imm(1, 1)},
	{"be 10 00 00 00", "mov $0x10,%esi", imm(1, 4)},
	{"66 b8 10 00", "mov $0x10,%ax", imm(2, 2)},
	{"48 b8 88 77 66 55 44 33 22 11", "movabs $0x1122334455667788,%rax", imm(2, 8)},
	{"66 48 b8 88 77 66 55 44 33 22 11", "data16 movabs $0x1122334455667788,%rax", imm(3, 8)},
	{"49 bf 88 77 66 55 44 33 22 11", "movabs $0x1122334455667788,%r15", imm(2, 8)},
	{"41 b8 10 00 00 00", "mov $0x10,%r8d: REX without W", imm(2, 4)},
	{"48 66 b8 10 00", "rex.W mov $0x10,%ax: REX before 66 does not count", imm(3, 2)},
	{"a0 88 77 66 55 44 33 22 11", "movabs 0x1122334455667788,%al", Inst{}},
	{"48 a3 88 77 66 55 44 33 22 11", "movabs %rax,0x1122334455667788", Inst{}},
	{"67 a1 44 33 22 11", "addr32 mov 0x11223344,%eax", Inst{}},
	{"66 a1 88 77 66 55 44 33 22 11", "movabs 0x1122334455667788,%ax", Inst{}},
	{"c0 e0 04", "shl $0x4,%al", imm(2, 1)},
	{"48 c1 e0 04", "shl $0x4,%rax", imm(3, 1)},
	{"48 d3 e0", "shl %cl,%rax", Inst{}},
	{"c8 10 00 01", "enter $0x10,$0x1: both parts", imm(1, 3)},
	{"cd 80", "int $0x80", imm(1, 1)},
	{"e4 60", "in $0x60,%al", imm(1, 1)},

	// Group 3: an immediate for test only.
	{"f6 c3 01", "test $0x1,%bl", imm(2, 1)},
	{"f6 cb 01", "test $0x1,%bl: /1", imm(2, 1)},
	{"f6 d3", "not %bl", Inst{}},
	{"f6 40 10 01", "testb $0x1,0x10(%rax)", imm(3, 1)},
	{"f7 c3 00 01 00 00", "test $0x100,%ebx", imm(2, 4)},
	{"66 f7 c3 00 01", "test $0x100,%bx", imm(3, 2)},
	{"48 f7 c3 00 01 00 00", "test $0x100,%rbx", imm(3, 4)},
	{"48 f7 05 10 00 00 00 00 01 00 00", "testq $0x100,0x10(%rip)", Inst{DispOff: 3, ImmOff: 7, ImmSize: 4}},
	{"48 f7 d8", "neg %rax", Inst{}},
	{"48 f7 f1", "div %rcx", Inst{}},

	// Flow.
	{"e8 00 00 00 00", "call", rel(Call, 1, 4)},
	{"e9 00 00 00 00", "jmp", rel(Jump, 1, 4)},
	{"eb 10", "jmp", rel(Jump, 1, 1)},
	{"74 10", "je", rel(Branch, 1, 1)},
	{"0f 84 00 00 00 00", "je", rel(Branch, 2, 4)},
	{"2e 75 10", "jne,pn", rel(Branch, 2, 1)},
	{"2e 0f 85 00 00 00 00", "jne,pn", rel(Branch, 3, 4)},
	{"2e e8 00 00 00 00", "cs call", rel(Call, 2, 4)},
	{"f2 e9 00 00 00 00", "bnd jmp", rel(Jump, 2, 4)},
	{"48 e8 00 00 00 00", "rex.W call", rel(Call, 2, 4)},
	{"66 66 48 e8 00 00 00 00", "data16 data16 rex.W call: TLS sequence", rel(Call, 4, 4)},
	{"e0 10", "loopne", rel(Branch, 1, 1)},
	{"e2 10", "loop", rel(Branch, 1, 1)},
	{"e3 10", "jrcxz", rel(Branch, 1, 1)},
	{"67 e3 10", "jecxz", rel(Branch, 2, 1)},
	{"c7 f8 00 00 00 00", "xbegin", rel(Branch, 2, 4)},
	{"48 c7 f8 00 00 00 00", "rex.W xbegin", rel(Branch, 3, 4)},
	{"c6 f8 01", "xabort $0x1", imm(2, 1)},
	{"ff d0", "call *%rax", Inst{Flow: Indirect}},
	{"ff 15 10 00 00 00", "call *0x10(%rip)", Inst{Flow: Indirect, DispOff: 2}},
	{"ff e0", "jmp *%rax", Inst{Flow: Indirect}},
	{"3e ff e0", "notrack jmp *%rax", Inst{Flow: Indirect}},
	{"ff 24 c5 00 00 00 00", "jmp *0x0(,%rax,8)", Inst{Flow: Indirect}},
	{"ff 18", "lcall *(%rax)", Inst{Flow: Indirect}},
	{"ff 28", "ljmp *(%rax)", Inst{Flow: Indirect}},
	{"ff c0", "inc %eax", Inst{}},
	{"ff 30", "push (%rax)", Inst{}},
	{"fe 08", "decb (%rax)", Inst{}},
	{"c3", "ret", Inst{Flow: Return}},
	{"f3 c3", "repz ret", Inst{Flow: Return}},
	{"c2 08 00", "ret $0x8", Inst{Flow: Return, ImmOff: 1, ImmSize: 2}},
	{"cb", "lret", Inst{Flow: Return}},
	{"ca 08 00", "lret $0x8", Inst{Flow: Return, ImmOff: 1, ImmSize: 2}},
	{"48 cf", "iretq", Inst{Flow: Return}},
	{"48 0f 07", "sysretq", Inst{Flow: Return}},
	{"0f 35", "sysexitl", Inst{Flow: Return}},
	{"0f 05", "syscall", Inst{}},
	{"0f aa", "rsm", Inst{Flow: Return}},
	{"0f 0b", "ud2", Inst{Flow: Return}},
	{"0f b9 40 10", "ud1 0x10(%rax),%eax", Inst{Flow: Return}},
	{"67 0f b9 40 16", "ud1 0x16(%eax),%eax", Inst{Flow: Return}},
	{"0f ff c1", "ud0 %ecx,%eax", Inst{Flow: Return}},

	// System instructions of the kernel.
	{"f3 0f 1e fa", "endbr64", Inst{}},
	{"f3 48 0f 1e c8", "rdsspq %rax", Inst{}},
	{"f3 48 0f ae e8", "incsspq %rax", Inst{}},
	{"f3 0f 01 e8", "setssbsy", Inst{}},
	{"f3 0f 01 ea", "saveprevssp", Inst{}},
	{"f3 0f 01 28", "rstorssp (%rax)", Inst{}},
	{"f3 0f ae 30", "clrssbsy (%rax)", Inst{}},
	{"66 0f 38 f5 08", "wrussd %ecx,(%rax)", Inst{}},
	{"0f 01 cb", "stac", Inst{}},
	{"0f 01 ca", "clac", Inst{}},
	{"0f 01 ee", "rdpkru", Inst{}},
	{"0f 01 ef", "wrpkru", Inst{}},
	{"0f 01 d0", "xgetbv", Inst{}},
	{"0f 01 d1", "xsetbv", Inst{}},
	{"0f 01 c1", "vmcall", Inst{}},
	{"0f 01 d9", "vmmcall", Inst{}},
	{"f3 0f 01 d9", "vmgexit", Inst{}},
	{"0f 01 c2", "vmlaunch", Inst{}},
	{"0f 01 d8", "vmrun", Inst{}},
	{"66 0f 01 cc", "tdcall", Inst{}},
	{"0f 01 f8", "swapgs", Inst{}},
	{"0f 01 f9", "rdtscp", Inst{}},
	{"0f 01 c8", "monitor %rax,%ecx,%edx", Inst{}},
	{"0f 01 fb", "mwaitx %eax,%ecx,%ebx", Inst{}},
	{"0f 01 e8", "serialize", Inst{}},
	{"0f 01 cf", "encls", Inst{}},
	{"0f 01 38", "invlpg (%rax)", Inst{}},
	{"0f 01 15 10 00 00 00", "lgdt 0x10(%rip)", disp(3)},
	{"f2 0f 01 ff", "pvalidate", Inst{}},
	{"f3 0f 01 ec", "uiret", Inst{Flow: Return}},
	{"0f 00 d8", "ltr %eax", Inst{}},
	{"0f 09", "wbinvd", Inst{}},
	{"f3 0f 09", "wbnoinvd", Inst{}},
	{"0f 30", "wrmsr", Inst{}},
	{"0f a2", "cpuid", Inst{}},
	{"0f 22 d8", "mov %rax,%cr3", Inst{}},
	{"44 0f 20 c0", "mov %cr8,%rax", Inst{}},
	{"0f 21 f8", "mov %db7,%rax", Inst{}},
	{"0f 20 04", "mov %cr0,%rsp: mod is ignored, so rm=4 is no SIB", Inst{}},
	{"0f 20 85", "mov %cr0,%rbp: mod is ignored, so no disp32", Inst{}},
	{"0f c7 f0", "rdrand %eax", Inst{}},
	{"48 0f c7 f8", "rdseed %rax", Inst{}},
	{"f3 0f c7 f8", "rdpid %rax", Inst{}},
	{"0f c7 30", "vmptrld (%rax)", Inst{}},
	{"f3 0f c7 30", "vmxon (%rax)", Inst{}},
	{"48 0f c7 08", "cmpxchg16b (%rax)", Inst{}},
	{"48 0f c7 20", "xsavec64 (%rax)", Inst{}},
	{"48 0f c7 28", "xsaves64 (%rax)", Inst{}},
	{"48 0f c7 1f", "xrstors64 (%rdi)", Inst{}},
	{"48 0f ae 37", "xsaveopt64 (%rdi)", Inst{}},
	{"48 0f ae 2f", "xrstor64 (%rdi)", Inst{}},
	{"0f ae 14 24", "ldmxcsr (%rsp)", Inst{}},
	{"0f ae e8", "lfence", Inst{}},
	{"0f ae f0", "mfence", Inst{}},
	{"66 0f ae 38", "clflushopt (%rax)", Inst{}},
	{"66 0f ae 30", "clwb (%rax)", Inst{}},
	{"66 0f ae f1", "tpause %ecx", Inst{}},
	{"f3 48 0f ae d0", "wrfsbase %rax", Inst{}},
	{"66 0f 38 82 01", "invpcid (%rcx),%rax", Inst{}},
	{"66 0f 38 f8 0a", "movdir64b (%rdx),%rcx", Inst{}},
	{"f3 0f 38 f8 0a", "enqcmds (%rdx),%rcx", Inst{}},
	{"f2 0f 38 f8 0a", "enqcmd (%rdx),%rcx", Inst{}},
	{"0f 38 f9 08", "movdiri %ecx,(%rax)", Inst{}},
	{"0f 78 c1", "vmread %rax,%rcx", Inst{}},
	{"0f 79 c1", "vmwrite %rcx,%rax", Inst{}},
	{"66 0f 78 c1 02 03", "extrq $0x3,$0x2,%xmm1: two imm8", imm(4, 2)},
	{"f2 0f 78 c1 02 03", "insertq $0x3,$0x2,%xmm1,%xmm0: two imm8", imm(4, 2)},
	{"f3 0f 3a f0 c0 01", "hreset $0x1", imm(5, 1)},

	// Atomics.
	{"f0 48 0f b1 0d 10 00 00 00", "lock cmpxchg %rcx,0x10(%rip)", disp(5)},
	{"f0 ff 05 10 00 00 00", "lock incl 0x10(%rip)", disp(3)},
	{"f0 83 04 24 00", "lock addl $0x0,(%rsp)", imm(4, 1)},
	{"f0 0f ba 28 01", "lock btsl $0x1,(%rax)", imm(4, 1)},
	{"f0 0f c1 03", "lock xadd %eax,(%rbx)", Inst{}},
	{"f0 48 0f c7 0e", "lock cmpxchg16b (%rsi)", Inst{}},
	{"f0 f7 18", "lock negl (%rax)", Inst{}},
	{"f0 01 03", "lock add %eax,(%rbx)", Inst{}},
	{"f0 87 03", "lock xchg %eax,(%rbx)", Inst{}},
	{"3e 01 03", "ds add %eax,(%rbx): lock on a uniprocessor", Inst{}},

	// Two- and three-byte maps.
	{"0f 1f 44 00 00", "nopl 0x0(%rax,%rax,1)", Inst{}},
	{"0f b6 c0", "movzbl %al,%eax", Inst{}},
	{"0f 94 c0", "sete %al", Inst{}},
	{"0f a4 c2 04", "shld $0x4,%eax,%edx", imm(3, 1)},
	{"0f ba e0 04", "bt $0x4,%eax", imm(3, 1)},
	{"f3 0f b8 c1", "popcnt %ecx,%eax", Inst{}},
	{"f3 0f bc c1", "tzcnt %ecx,%eax", Inst{}},
	{"48 0f c8", "bswap %rax", Inst{}},
	{"0f 38 f0 00", "movbe (%rax),%eax", Inst{}},
	{"f2 48 0f 38 f1 c1", "crc32q %rcx,%rax", Inst{}},
	{"66 f2 0f 38 f1 c1", "crc32w %cx,%eax", Inst{}},
	{"66 48 0f 38 f6 c1", "adcx %rcx,%rax", Inst{}},
	{"f3 48 0f 38 f6 c1", "adox %rcx,%rax", Inst{}},
	{"0f 10 07", "movups (%rdi),%xmm0", Inst{}},
	{"66 0f 6f 05 10 00 00 00", "movdqa 0x10(%rip),%xmm0", disp(4)},
	{"66 0f 70 c0 1b", "pshufd $0x1b,%xmm0,%xmm0", imm(4, 1)},
	{"66 0f 73 d8 08", "psrldq $0x8,%xmm0", imm(4, 1)},
	{"0f c6 c0 1b", "shufps $0x1b,%xmm0,%xmm0", imm(3, 1)},
	{"66 0f 38 00 c1", "pshufb %xmm1,%xmm0", Inst{}},
	{"66 0f 38 dc c1", "aesenc %xmm1,%xmm0", Inst{}},
	{"66 0f 3a 0f c1 08", "palignr $0x8,%xmm1,%xmm0", imm(5, 1)},
	{"66 0f 3a 44 05 10 00 00 00 11", "pclmulhqhqdq 0x10(%rip),%xmm0", Inst{DispOff: 5, ImmOff: 9, ImmSize: 1}},
	{"0f 77", "emms", Inst{}},
	{"d9 05 10 00 00 00", "flds 0x10(%rip)", disp(2)},
	{"d9 ee", "fldz", Inst{}},
	{"db e3", "fninit", Inst{}},
	{"df e0", "fnstsw %ax", Inst{}},
	{"de d9", "fcompp", Inst{}},

	// VEX and EVEX.
	{"c5 f8 77", "vzeroupper", Inst{}},
	{"c5 fd 6f 05 10 00 00 00", "vmovdqa 0x10(%rip),%ymm0", disp(4)},
	{"c5 f9 70 c0 1b", "vpshufd $0x1b,%xmm0,%xmm0", imm(4, 1)},
	{"c4 e2 7d 00 c1", "vpshufb %ymm1,%ymm0,%ymm0", Inst{}},
	{"c4 e2 f8 f2 c1", "andn %rcx,%rax,%rax", Inst{}},
	{"c4 e2 f8 f3 c9", "blsr %rcx,%rax", Inst{}},
	{"c4 e3 fb f0 c0 08", "rorx $0x8,%rax,%rax", imm(5, 1)},
	{"c4 e3 7d 4a c1 20", "vblendvps %ymm2,%ymm1,%ymm0,%ymm0: register in the imm8", imm(5, 1)},
	{"c4 e2 7d 90 04 08", "vpgatherdd %ymm0,(%rax,%ymm1,1),%ymm0", Inst{}},
	{"c4 e2 78 49 c0", "tilerelease", Inst{}},
	{"c4 e1 fb 92 c0", "kmovq %rax,%k0", Inst{}},
	{"62 f1 7c 48 10 07", "vmovups (%rdi),%zmm0", Inst{}},
	{"62 f1 7c 48 10 47 01", "vmovups 0x40(%rdi),%zmm0: disp8 counts 64 bytes", Inst{}},
	{"62 f1 fd 48 6f 05 10 00 00 00", "vmovdqa64 0x10(%rip),%zmm0", disp(6)},
	{"62 f3 7d 48 25 c1 96", "vpternlogd $0x96,%zmm1,%zmm0,%zmm0", imm(6, 1)},
	{"62 f1 7d 48 72 c0 08", "vprord $0x8,%zmm0,%zmm0", imm(6, 1)},
	{"62 f2 7d 48 8d c1", "vpermb %zmm1,%zmm0,%zmm0", Inst{}},
	{"62 f5 7c 48 58 c1", "vaddph %zmm1,%zmm0,%zmm0", Inst{}},
	{"62 f6 7d 48 98 c1", "vfmadd132ph %zmm1,%zmm0,%zmm0", Inst{}},

	// 15 bytes, the longest there are.
	{"2e 2e 2e 2e 2e 2e 2e 2e 2e 2e 2e 2e 2e 2e 90", "cs ×14 nop", Inst{}},
	{"26 26 26 26 26 48 b8 88 77 66 55 44 33 22 11", "es ×5 movabs $0x1122334455667788,%rax", imm(7, 8)},
}

// x86Differ are instructions that objdump reads differently, or that objdump
// 2.40 does not know.
var x86Differ = []x86Case{
	{"66 e8 00 00 00 00", "call: Intel ignores 66, objdump reads rel16 as AMD does", rel(Call, 2, 4)},
	{"66 e9 00 00 00 00", "jmp", rel(Jump, 2, 4)},
	{"66 0f 84 00 00 00 00", "je", rel(Branch, 3, 4)},
	{"d6", "udb", Inst{Flow: Return}},
	{"f3 0f 01 ca", "eretu", Inst{Flow: Return}},
	{"f2 0f 01 ca", "erets", Inst{Flow: Return}},
	{"f2 0f 00 f0", "lkgs %eax", Inst{}},
	{"0f 01 c6", "wrmsrns", Inst{}},
	{"f2 0f 38 f8 c1", "urdmsr %rax,%rcx", Inst{}},
	{"c4 e2 7f cd c1", "vsha512msg2 %ymm1,%ymm0", Inst{}},
	{"48 2e 90", "rex.W cs nop: objdump prints the lost REX alone", Inst{}},
}

func TestDecodeX86(t *testing.T) {
	for _, tt := range append(x86Cases[:len(x86Cases):len(x86Cases)], x86Differ...) {
		t.Run(tt.asm, func(t *testing.T) {
			code := unhex(t, tt.bytes)
			tt.want.Len = len(code)
			for _, tail := range [][]byte{nil, {0xff}, bytes.Repeat([]byte{0x90}, 20)} {
				got, ok := x86_64.Decode(append(code[:len(code):len(code)], tail...))
				if !ok {
					t.Fatalf("% x: not decoded", code)
				}
				if d := cmp.Diff(tt.want, got); d != "" {
					t.Errorf("% x (-want +got):\n%s", code, d)
				}
			}
			for n := range code { // every shorter piece is too short
				if got, ok := x86_64.Decode(code[:n]); ok {
					t.Errorf("% x: decoded from %d bytes: %+v", code, n, got)
				}
			}
		})
	}
}

func TestDecodeX86Refused(t *testing.T) {
	const nops = "90 90 90 90 90 90 90 90 90 90 90 90"
	for _, tt := range []struct{ why, bytes string }{
		{"empty", ""},
		{"prefixes only", "66 f3 2e"},
		{"15 prefixes, opcode is byte 16", "66 66 66 66 66 66 66 66 66 66 66 66 66 66 66 90"},
		{"16 bytes: immediate ends too late", "26 26 26 26 26 26 48 b8 88 77 66 55 44 33 22 11"},
		{"two REX", "48 48 89 c0"},

		{"push es, not in 64-bit mode", "06 " + nops},
		{"daa, not in 64-bit mode", "27 " + nops},
		{"pusha, not in 64-bit mode", "60 " + nops},
		{"group 1 82, not in 64-bit mode", "82 c0 01 " + nops},
		{"far call, not in 64-bit mode", "9a " + nops},
		{"far jump, not in 64-bit mode", "ea " + nops},
		{"into, not in 64-bit mode", "ce " + nops},
		{"aam, not in 64-bit mode", "d4 0a " + nops},
		{"aad or REX2", "d5 0a " + nops},

		{"XOP", "8f e8 78 c0 c1 00 " + nops},
		{"pop group /1", "8f 08 " + nops},
		{"mov group /1", "c7 c8 " + nops},
		{"xabort with rm 1", "c6 f9 00 " + nops},
		{"xbegin with 16-bit displacement", "66 c7 f8 00 00 " + nops},
		{"inc dec group /2", "fe d0 " + nops},
		{"group 5 /7", "ff f8 " + nops},
		{"far call through a register", "ff d8 " + nops},
		{"lea of a register", "8d c0 " + nops},
		{"mov to cs", "8e c8 " + nops},
		{"mov from segment register 6", "8c f0 " + nops},
		{"mov from cr1", "0f 20 c8 " + nops},
		{"mov from cr9", "44 0f 20 c8 " + nops},
		{"mov from dr8", "44 0f 21 c0 " + nops},

		{"0f 04 undefined", "0f 04 " + nops},
		{"3DNow!", "0f 0f c1 9e " + nops},
		{"0f 24 undefined", "0f 24 c0 " + nops},
		{"0f 38 ff undefined", "0f 38 ff c0 " + nops},
		{"0f 3a ff undefined", "0f 3a ff c0 00 " + nops},
		{"pshufb with f3", "f3 0f 38 00 c1 " + nops},
		{"popcnt without f3 (jmpe)", "0f b8 c1 " + nops},
		{"movlps from a register", "0f 13 c1 " + nops},
		{"pextrw from memory", "66 0f c5 00 00 " + nops},
		{"psrlw of memory", "66 0f 71 10 01 " + nops},
		{"group 6 /7", "0f 00 f8 " + nops},
		{"0f 01 d2 undefined", "0f 01 d2 " + nops},
		{"0f 01 /5 without f3", "0f 01 28 " + nops},
		{"vmcall with 66", "66 0f 01 c1 " + nops},
		{"bt group /0", "0f ba c0 01 " + nops},
		{"group 9 /0", "0f c7 00 " + nops},
		{"cmpxchg8b of a register", "0f c7 c8 " + nops},
		{"rdfsbase without f3", "0f ae c0 " + nops},
		{"extrq /1", "66 0f 78 c9 02 03 " + nops},
		{"hreset with rm 1", "f3 0f 3a f0 c1 00 " + nops},
		{"x87 d9 /1 memory", "d9 08 " + nops},
		{"x87 d9 d1", "d9 d1 " + nops},
		{"x87 df e1", "df e1 " + nops},

		{"lock nop", "f0 90 " + nops},
		{"lock mov", "f0 89 03 " + nops},
		{"lock cmp", "f0 39 03 " + nops},
		{"lock cmp, immediate", "f0 83 3b 00 " + nops},
		{"lock add to a register", "f0 01 c3 " + nops},
		{"lock test", "f0 f6 03 01 " + nops},
		{"lock push", "f0 ff 30 " + nops},
		{"lock bt", "f0 0f ba 23 01 " + nops},
		{"lock rdrand", "f0 0f c7 f0 " + nops},
		{"lock xrstors", "f0 0f c7 1f " + nops},
		{"lock jne", "f0 75 00 " + nops},
		{"lock mov from cr0", "f0 0f 20 c0 " + nops},
		{"lock addps", "f0 0f 58 03 " + nops},
		{"lock pshufb", "f0 0f 38 00 03 " + nops},

		{"VEX after 66", "66 c5 f8 77 " + nops},
		{"VEX after f3", "f3 c5 f8 77 " + nops},
		{"VEX after lock", "f0 c5 f8 77 " + nops},
		{"VEX after REX", "48 c5 f8 77 " + nops},
		{"VEX map 0", "c4 e0 78 77 " + nops},
		{"VEX map 4", "c4 e4 78 77 " + nops},
		{"VEX opcode undefined", "c5 f8 00 c0 " + nops},
		{"VEX vzeroupper with 66", "c5 f9 77 " + nops},
		{"VEX gather without SIB", "c4 e2 7d 90 00 " + nops},
		{"VEX gather with RIP", "c4 e2 7d 90 05 " + nops},
		{"VEX gather from a register", "c4 e2 7d 90 c0 " + nops},
		{"VEX tilerelease with rm 1", "c4 e2 78 49 c1 " + nops},
		{"EVEX after 66", "66 62 f1 7c 48 10 07 " + nops},
		{"EVEX after REX", "48 62 f1 7c 48 10 07 " + nops},
		{"EVEX map 0", "62 f0 7c 48 10 07 " + nops},
		{"EVEX map 4 (APX)", "62 f4 7c 48 10 07 " + nops},
		{"EVEX map 7", "62 f7 7c 48 10 07 " + nops},
		{"EVEX bit 3 of byte 1 (bound or APX)", "62 f9 7c 48 10 07 " + nops},
		{"EVEX bit 2 of byte 2 clear (APX)", "62 f1 78 48 10 07 " + nops},
		{"EVEX opcode undefined", "62 f1 7c 48 77 " + nops},
	} {
		t.Run(tt.why, func(t *testing.T) {
			if got, ok := x86_64.Decode(unhex(t, tt.bytes)); ok || got != (Inst{}) {
				t.Errorf("%s: got %+v, %v; want a refusal", tt.bytes, got, ok)
			}
		})
	}
}

// TestX86Maps checks the grids: no cell is lost or misspelled.
func TestX86Maps(t *testing.T) {
	grids := map[string]string{
		"one byte": x86OneByte, "0f": x860F, "0f 38": x860F38, "0f 3a": x860F3A,
		"vex 0f": x86VEX0F, "vex 0f 38": x86VEX0F38, "vex 0f 3a": x86VEX0F3A,
		"evex 0f": x86EVEX0F, "evex 0f 38": x86EVEX0F38, "evex 0f 3a": x86EVEX0F3A,
		"evex 5": x86EVEXMap5, "evex 6": x86EVEXMap6,
	}
	for name, grid := range grids {
		last := -1
		for _, line := range strings.Split(strings.TrimSpace(grid), "\n") {
			f := strings.Fields(line)
			if len(f) != 17 {
				t.Errorf("%s: row %q has %d fields", name, line, len(f))
				continue
			}
			row := strings.Index(hexDigits, f[0])
			if row <= last {
				t.Errorf("%s: row %q out of order", name, line)
			}
			last = row
			for _, cell := range f[1:] {
				checkX86Cell(t, name, cell)
			}
		}
	}
}

func checkX86Cell(t *testing.T, grid, cell string) {
	t.Helper()
	known := strings.Contains(".-bzvweojJLcCrRmBZyhHsik7fu", cell[:1])
	switch {
	case len(cell) == 1:
	case len(cell) != 3:
		known = false
	case cell[1] == 'g':
		known = known && x86Groups[cell[2]] != [8]x86Forms{}
	default:
		f := parseX86Forms(cell[1:])
		known = known && f != x86Forms{} && strings.Trim(cell[1:], ".123456789ABCDEF") == ""
	}
	if !known {
		t.Errorf("%s: bad cell %q", grid, cell)
	}
}

func TestX86Relocs(t *testing.T) {
	klp := map[string]bool{}
	for n, r := range x86_64.Relocs {
		if want := elf.R_X86_64(n).String(); r.Name != want {
			t.Errorf("%d: name %s, want %s", n, r.Name, want)
		}
		// A name says PC, or GOT with PC, or TLS that is found through the GOT;
		// PLT32 is relative to its place too.
		pcrel := strings.Contains(r.Name, "PC") || strings.Contains(r.Name, "_TLS") && r.Size == 4 ||
			r.Name == "R_X86_64_PLT32" || r.Name == "R_X86_64_GOTTPOFF"
		if r.PCRel != pcrel {
			t.Errorf("%s: PCRel %v", r.Name, r.PCRel)
		}
		if r.Klp {
			klp[r.Name] = true
		}
	}
	want := map[string]bool{
		"R_X86_64_NONE": true, "R_X86_64_64": true, "R_X86_64_32": true, "R_X86_64_32S": true,
		"R_X86_64_PC32": true, "R_X86_64_PLT32": true, "R_X86_64_PC64": true,
	}
	if d := cmp.Diff(want, klp); d != "" {
		t.Errorf("applied by the kernel (-want +got):\n%s", d)
	}
	sizes := map[elf.R_X86_64]int{
		elf.R_X86_64_NONE: 0, elf.R_X86_64_64: 8, elf.R_X86_64_PC32: 4, elf.R_X86_64_PLT32: 4,
		elf.R_X86_64_32: 4, elf.R_X86_64_32S: 4, elf.R_X86_64_16: 2, elf.R_X86_64_PC16: 2,
		elf.R_X86_64_8: 1, elf.R_X86_64_PC8: 1, elf.R_X86_64_PC64: 8, elf.R_X86_64_SIZE32: 4,
		elf.R_X86_64_SIZE64: 8, elf.R_X86_64_GOTPCREL: 4, elf.R_X86_64_GOTPCRELX: 4,
		elf.R_X86_64_REX_GOTPCRELX: 4, elf.R_X86_64_GLOB_DAT: 8, elf.R_X86_64_TLSDESC_CALL: 0,
	}
	for r, size := range sizes {
		if got, ok := x86_64.Relocs[uint32(r)]; !ok || got.Size != size {
			t.Errorf("%s: size %d (known %v), want %d", r, got.Size, ok, size)
		}
	}
}

func TestByMachine(t *testing.T) {
	if a, ok := ByMachine(elf.EM_X86_64); !ok || a != x86_64 {
		t.Errorf("x86-64: %v, %v", a, ok)
	}
	if a, ok := ByMachine(elf.EM_386); ok {
		t.Errorf("i386: %v", a.Name)
	}
}

func TestDecodeX86DoesNotAllocate(t *testing.T) {
	code := unhex(t, "48 c7 05 10 00 00 00 01 00 00 00")
	if n := testing.AllocsPerRun(100, func() { x86_64.Decode(code) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func checkInst(t *testing.T, code []byte, in Inst) {
	t.Helper()
	inside := func(off, size int) bool { return off > 0 && off+size <= in.Len }
	switch {
	case in.Len < 1 || in.Len > x86MaxLen || in.Len > len(code):
		t.Errorf("% x: length %d", code, in.Len)
	case in.RelSize != 0 && (in.RelSize != 1 && in.RelSize != 4 || !inside(in.RelOff, in.RelSize)):
		t.Errorf("% x: displacement of branch outside: %+v", code, in)
	case in.ImmSize != 0 && !inside(in.ImmOff, in.ImmSize):
		t.Errorf("% x: immediate outside: %+v", code, in)
	case in.DispOff != 0 && !inside(in.DispOff, 4):
		t.Errorf("% x: displacement outside: %+v", code, in)
	case (in.RelSize != 0) != (in.Flow == Call || in.Flow == Jump || in.Flow == Branch):
		t.Errorf("% x: flow and displacement differ: %+v", code, in)
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range x86Cases {
		f.Add(unhex(f, c.bytes))
	}
	f.Fuzz(func(t *testing.T, code []byte) {
		in, ok := x86_64.Decode(code)
		if !ok {
			if in != (Inst{}) {
				t.Errorf("% x: refused with %+v", code, in)
			}
			return
		}
		checkInst(t, code, in)
		// Nothing behind the instruction matters, and all of it is needed.
		if again, ok := x86_64.Decode(code[:in.Len]); !ok || again != in {
			t.Errorf("% x: %+v, cut to its length %+v, %v", code, in, again, ok)
		}
		if short, ok := x86_64.Decode(code[:in.Len-1]); ok {
			t.Errorf("% x: %+v, one byte less %+v", code, in, short)
		}
	})
}

// TestDecodeX86Random is FuzzDecode's contract over random bytes.
func TestDecodeX86Random(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	code := make([]byte, 18)
	for range 300_000 {
		for i := range code {
			code[i] = byte(r.Uint32())
		}
		piece := code[:r.IntN(len(code)+1)]
		if in, ok := x86_64.Decode(piece); ok {
			checkInst(t, piece, in)
		}
	}
}

func BenchmarkDecodeX86(b *testing.B) {
	var code []byte
	for _, c := range x86Cases {
		code = append(code, unhex(b, c.bytes)...)
	}
	b.SetBytes(int64(len(code)))
	b.ReportAllocs()
	for b.Loop() {
		for p := code; len(p) > 0; {
			in, ok := x86_64.Decode(p)
			if !ok {
				b.Fatalf("% x", p)
			}
			p = p[in.Len:]
		}
	}
}
