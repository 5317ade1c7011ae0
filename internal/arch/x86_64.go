package arch

// The length and flow of x86-64 instructions, 64-bit mode only.
//
// Spec: Intel SDM volume 2, chapter 2 (instruction format) and appendix A
// (opcode maps, and tables for groups and x87); AMD APM volume 3
// for SVM, SSE4a and FMA4. Legacy opcodes are read by the Intel rules: a 66
// prefix does not shorten the displacement of a near branch.
//
// An instruction is read from left to right, five parts, each optional but
// the opcode:
//
//  1. Legacy prefixes, any number in any order, then at most one REX. REX only
//     counts right before the opcode: a legacy prefix after it cancels it.
//  2. The opcode: one byte, or 0f, 0f 38 and 0f 3a with one more, or a VEX
//     (c4, c5) or EVEX (62) prefix that names one of the same maps. Each map is
//     a grid of 256 cells below. A cell tells the shape of the rest, and under
//     which mandatory prefixes (none, 66, f3, f2) the opcode exists, once with
//     a memory operand and once with a register operand.
//  3. ModRM, if the shape has one. Its reg field selects the instruction in a
//     group. A memory operand may add an SIB byte and a displacement of 1 or 4
//     bytes; mod=0 rm=5 is RIP-relative.
//  4. The immediate, or the displacement of a branch. Only here does the
//     operand size matter: 66 makes an immediate of 4 bytes one of 2, REX.W
//     overrules 66.
//  5. The flow comes with the shape, but for a few groups.
//
// What the maps leave empty is refused, and so is an instruction that runs past
// the end of the code or past 15 bytes (both are one check: the code is cut to
// 15 bytes first). What is not checked: reserved values of VEX.L, VEX.W,
// VEX.vvvv and EVEX.b, and operands that must differ. They change neither
// length nor flow.
//
// Not known, hence refused: APX (REX2, EVEX map 4), AVX10.2, XOP, 3DNow!,
// Xeon Phi's own instructions, and xbegin with a 16-bit displacement.

import (
	"debug/elf"
	"strings"
)

var x86_64 = &Arch{
	Name:    "x86",
	Machine: elf.EM_X86_64,
	Decode:  decodeX86,
	Relocs:  x86Relocs,
}

// x86MaxLen is the length of the longest instruction in bytes (SDM vol. 2, 2.3.11).
const x86MaxLen = 15

// Mandatory prefixes as bits, in the order of the pp field of VEX and EVEX.
const (
	ppNone = 1 << iota
	pp66
	ppF3
	ppF2
)

// x86Cell is an opcode in a map.
type x86Cell struct {
	shape byte // see x86Maps
	group byte // name in x86Groups, 0 if mem and reg apply
	forms x86Forms
}

// x86Forms is the set of mandatory prefixes, pp bits, with which an
// instruction exists: with a memory operand, and with a register operand or
// without ModRM.
type x86Forms struct{ mem, reg byte }

type x86Map [256]x86Cell

// The maps' grids: rows are the high half of the opcode, missing rows are
// undefined. A cell is a shape, and behind it either two hexadecimal digits, the
// forms with memory and with a register (sums of 1 none, 2 66, 4 f3, 8 f2; '.'
// for 0), or 'g' and the name of a group. Without either, all forms exist.
//
// Shapes without ModRM:
//
//	b  imm8                       -  nothing follows
//	z  imm16 or imm32             v  imm16, imm32 or imm64 (mov r, imm)
//	w  imm16                      e  imm16 and imm8 (enter)
//	o  absolute address (mov moffs); not counted as an immediate
//	j  jmp rel8    J  jmp rel32   L  call rel32
//	c  jcc rel8    C  jcc rel32   r  return    R  return, imm16
//
// Shapes with ModRM:
//
//	m  nothing follows            B  imm8
//	Z  imm16 or imm32             y  vmread; with 66 or f2 two imm8
//	h  group 3, imm8 for test     H  group 3, imm16 or imm32 for test
//	s  memory with SIB (vector index, AMX tile rows)
//	i  indirect call and jump or other (group 5)
//	k  mov from and to control or debug register: mod is ignored
//	7  group 7, 0f 01             f  x87
//	u  ud0, ud1
//
// Prefixes and escapes have '.': they are read before the map is.
const x86OneByte = `
0  m   m   m   m   b   z   .   .   m   m   m   m   b   z   .   .
1  m   m   m   m   b   z   .   .   m   m   m   m   b   z   .   .
2  m   m   m   m   b   z   .   .   m   m   m   m   b   z   .   .
3  m   m   m   m   b   z   .   .   m   m   m   m   b   z   .   .
5  -   -   -   -   -   -   -   -   -   -   -   -   -   -   -   -
6  .   .   .   m   .   .   .   .   z   Z   b   B   -   -   -   -
7  c   c   c   c   c   c   c   c   c   c   c   c   c   c   c   c
8  B   Z   .   B   m   m   m   m   m   m   m   m   mgs mF. mgt mga
9  -   -   -   -   -   -   -   -   -   -   .   -   -   -   -   -
a  o   o   o   o   -   -   -   -   b   z   -   -   -   -   -   -
b  b   b   b   b   b   b   b   b   v   v   v   v   v   v   v   v
c  B   B   R   r   .   .   Bgb Zgb e   -   R   r   -   b   .   r
d  m   m   m   m   .   .   r   -   f   f   f   f   f   f   f   f
e  c   c   c   c   b   b   b   b   L   J   .   j   -   -   -   -
f  .   -   .   .   -   -   h   H   -   -   -   -   -   -   mg4 ig5
`

const x860F = `
0  mg6 7   m   m   .   -   -   r   -   -.5 .   r   .   mF. .   .
1  m   m   mFD m3. m33 m33 m75 m3. m   m   m   m   m   m   m   m
2  k   k   k   k   .   .   .   .   m33 m33 m   mF. m   m   m33 m33
3  -   -   -   -   -   r   .   -.1 .   .   .   .   .   .   .   .
4  m   m   m   m   m   m   m   m   m   m   m   m   m   m   m   m
5  m.3 m   m55 m55 m33 m33 m33 m33 m   m   m   m77 m   m   m   m
6  m33 m33 m33 m33 m33 m33 m33 m33 m33 m33 m33 m33 m22 m22 m33 m77
7  B   Bgc Bgd Bge m33 m33 m33 -.1 y1B m1B .   .   mAA mAA m77 m77
8  C   C   C   C   C   C   C   C   C   C   C   C   C   C   C   C
9  m   m   m   m   m   m   m   m   m   m   m   m   m   m   m   m
a  -   -   -   m   B   m   .   .   -   -   r   m   B   m   mgf m
b  m   m   mF. m   mF. mF. m   m   m44 u   Bg8 m   m   m   m   m
c  m   m   B   m1. B33 B.3 B33 mg9 -   -   -   -   -   -   -   -
d  mAA m33 m33 m33 m33 m33 m2E m.3 m33 m33 m33 m33 m33 m33 m33 m33
e  m33 m33 m33 m33 m33 m33 mEE m3. m33 m33 m33 m33 m33 m33 m33 m33
f  m8. m33 m33 m33 m33 m33 m33 m.3 m33 m33 m33 m33 m33 m33 m33 u
`

const x860F38 = `
0  m33 m33 m33 m33 m33 m33 m33 m33 m33 m33 m33 m33 .   .   .   .
1  m22 .   .   .   m22 m22 .   m22 .   .   .   .   m33 m33 m33 .
2  m22 m22 m22 m22 m22 m22 .   .   m22 m22 m2. m22 .   .   .   .
3  m22 m22 m22 m22 m22 m22 .   m22 m22 m22 m22 m22 m22 m22 m22 m22
4  m22 m22 .   .   .   .   .   .   .   .   .   .   .   .   .   .
8  m2. m2. m2. .   .   .   .   .   .   .   .   .   .   .   .   .
c  .   .   .   .   .   .   .   .   m11 m11 m11 m11 m11 m11 .   m22
d  .   .   .   .   .   .   .   .   mgw .   .   m22 m66 m62 m62 m62
f  mB8 mB8 .   .   .   m2. m76 .   mEC m1. m.4 m.4 mF. .   .   .
`

const x860F3A = `
0  .   .   .   .   .   .   .   .   B22 B22 B22 B22 B22 B22 B22 B33
1  .   .   .   .   B22 B22 B22 B22 .   .   .   .   .   .   .   .
2  B22 B22 B22 .   .   .   .   .   .   .   .   .   .   .   .   .
4  B22 B22 B22 .   B22 .   .   .   .   .   .   .   .   .   .   .
6  B22 B22 B22 B22 .   .   .   .   .   .   .   .   .   .   .   .
c  .   .   .   .   .   .   .   .   .   .   .   .   B11 .   B22 B22
d  .   .   .   .   .   .   .   .   .   .   .   .   .   .   .   B22
f  Bgr .   .   .   .   .   .   .   .   .   .   .   .   .   .   .
`

const x86VEX0F = `
1  m   m   mFD m3. m33 m33 m75 m3. .   .   .   .   .   .   .   .
2  .   .   .   .   .   .   .   .   m33 m33 mCC m3. mCC mCC m33 m33
4  .   m.3 m.3 .   m.3 m.3 m.3 m.3 .   .   m.3 m.3 .   .   .   .
5  m.3 m   m55 m55 m33 m33 m33 m33 m   m   m   m77 m   m   m   m
6  m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m66
7  BEE BgC BgD BgE m22 m22 m22 -.1 .   .   .   .   mAA mAA m66 m66
9  m33 m3. m.B m.B .   .   .   .   m.3 m.3 .   .   .   .   .   .
a  .   .   .   .   .   .   .   .   .   .   .   .   .   .   mgF .
c  .   .   B   .   B22 B.2 B33 .   .   .   .   .   .   .   .   .
d  mAA m22 m22 m22 m22 m22 m22 m.2 m22 m22 m22 m22 m22 m22 m22 m22
e  m22 m22 m22 m22 m22 m22 mEE m2. m22 m22 m22 m22 m22 m22 m22 m22
f  m8. m22 m22 m22 m22 m22 m22 m.2 m22 m22 m22 m22 m22 m22 m22 .
`

const x86VEX0F38 = `
0  m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m22
1  .   .   .   m22 .   .   m22 m22 m22 m22 m2. .   m22 m22 m22 .
2  m22 m22 m22 m22 m22 m22 .   .   m22 m22 m2. m22 m2. m2. m2. m2.
3  m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m22
4  m22 m22 .   .   .   m22 m22 m22 .   mgq .   sE. .   .   .   .
5  m   m   m22 m22 .   .   .   .   m22 m22 m2. .   m.C .   m.F .
6  .   .   .   .   .   .   .   .   .   .   .   .   m.3 .   .   .
7  .   .   m44 .   .   .   .   .   m22 m22 .   .   .   .   .   .
8  .   .   .   .   .   .   .   .   .   .   .   .   m2. .   m2. .
9  s2. s2. s2. s2. .   .   m22 m22 m22 m22 m22 m22 m22 m22 m22 m22
a  .   .   .   .   .   .   m22 m22 m22 m22 m22 m22 m22 m22 m22 m22
b  mF. m6. .   .   m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m22
c  .   .   .   .   .   .   .   .   .   .   .   m.8 m.8 m.8 .   m22
d  .   .   m77 m77 .   .   .   .   .   .   m   m22 m22 m22 m22 m22
e  m2. m2. m2. m2. m2. m2. m2. m2. m2. m2. m2. m2. m2. m2. m2. m2.
f  .   .   m11 mgh .   mDD m88 m   .   .   .   .   .   .   .   .
`

const x86VEX0F3A = `
0  B22 B22 B22 .   B22 B22 B22 .   B22 B22 B22 B22 B22 B22 B22 B22
1  .   .   .   .   B22 B22 B22 B22 B22 B22 .   .   .   B22 .   .
2  B22 B22 B22 .   .   .   .   .   .   .   .   .   .   .   .   .
3  B.2 B.2 B.2 B.2 .   .   .   .   B22 B22 .   .   .   .   .   .
4  B22 B22 B22 .   B22 .   B22 .   .   .   B22 B22 B22 .   .   .
5  .   .   .   .   .   .   .   .   .   .   .   .   B22 B22 B22 B22
6  B22 B22 B22 B22 .   .   .   .   B22 B22 B22 B22 B22 B22 B22 B22
7  .   .   .   .   .   .   .   .   B22 B22 B22 B22 B22 B22 B22 B22
c  .   .   .   .   .   .   .   .   .   .   .   .   .   .   B22 B22
d  .   .   .   .   .   .   .   .   .   .   .   .   .   .   B22 B22
f  B88 .   .   .   .   .   .   .   .   .   .   .   .   .   .   .
`

const x86EVEX0F = `
1  m   m   mFD m3. m33 m33 m75 m3. .   .   .   .   .   .   .   .
2  .   .   .   .   .   .   .   .   m33 m33 mCC m3. mCC mCC m33 m33
5  .   m   .   .   m33 m33 m33 m33 m   m   m   m77 m   m   m   m
6  m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 mEE
7  BEE BgX BgY BgZ m22 m22 m22 .   m   m   mEE mEE .   .   m66 mEE
c  .   .   B   .   B22 B.2 B33 .   .   .   .   .   .   .   .   .
d  .   m22 m22 m22 m22 m22 m22 .   m22 m22 m22 m22 m22 m22 m22 m22
e  m22 m22 m22 m22 m22 m22 mEE m2. m22 m22 m22 m22 m22 m22 m22 m22
f  .   m22 m22 m22 m22 m22 m22 .   m22 m22 m22 m22 m22 m22 m22 .
`

const x86EVEX0F38 = `
0  m22 .   .   .   m22 .   .   .   .   .   .   m22 m22 m22 .   .
1  m66 m66 m66 m66 m66 m66 m22 .   m22 m22 m2. m2. m22 m22 m22 m22
2  m66 m66 m66 m66 m66 m66 m66 m66 m26 m26 m24 m22 m22 m22 .   .
3  m66 m66 m66 m66 m66 m66 m22 m22 m26 m26 m26 m22 m22 m22 m22 m22
4  m22 .   m22 m22 m22 m22 m22 m22 .   .   .   .   m22 m22 m22 m22
5  m22 m22 m66 m22 m22 m22 .   .   m22 m22 m2. m2. .   .   .   .
6  .   .   m22 m22 m22 m22 m22 .   m88 .   .   .   .   .   .   .
7  m22 m22 mEE m22 .   m22 m22 m22 m22 m22 m.2 m.2 m.2 m22 m22 m22
8  .   .   .   m22 .   .   .   .   m22 m22 m22 m22 .   m22 .   m22
9  s2. s2. s2. s2. .   .   m22 m22 m22 m22 m22 m22 m22 m22 m22 m22
a  s2. s2. s2. s2. .   .   m22 m22 m22 m22 m22 m22 m22 m22 m22 m22
b  .   .   .   .   m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m22 m22
c  .   .   .   .   m22 .   .   .   .   .   .   .   .   .   .   m22
d  .   .   .   .   .   .   .   .   .   .   .   .   m22 m22 m22 m22
`

const x86EVEX0F3A = `
0  B22 B22 .   B22 B22 B22 .   .   B33 B22 B33 B22 .   .   .   B22
1  .   .   .   .   B22 B22 B22 B22 B22 B22 B22 B22 .   B22 B22 B22
2  B22 B22 B22 B22 .   B22 B33 B33 .   .   .   .   .   .   .   .
3  .   .   .   .   .   .   .   .   B22 B22 B22 B22 .   .   B22 B22
4  .   .   B22 B22 B22 .   .   .   .   .   .   .   .   .   .   .
5  B22 B22 .   .   B22 B22 B33 B33 .   .   .   .   .   .   .   .
6  .   .   .   .   .   .   B33 B33 .   .   .   .   .   .   .   .
7  B22 B22 B22 B22 .   .   .   .   .   .   .   .   .   .   .   .
c  .   .   B55 .   .   .   .   .   .   .   .   .   .   .   B22 B22
`

// EVEX maps 5 and 6 hold AVX512-FP16.
const x86EVEXMap5 = `
1  m44 m44 .   .   .   .   .   .   .   .   .   .   .   m33 .   .
2  .   .   .   .   .   .   .   .   .   .   m44 .   m44 m44 m11 m11
5  .   m55 .   .   .   .   .   .   m55 m55 m   m77 m55 m55 m55 m55
6  .   .   .   .   .   .   .   .   .   .   .   .   .   .   m22 .
7  .   .   .   .   .   .   .   .   m77 m77 mAA m66 m33 m   m22 .
`

const x86EVEXMap6 = `
1  .   .   .   m33 .   .   .   .   .   .   .   .   .   .   .   .
2  .   .   .   .   .   .   .   .   .   .   .   .   m22 m22 .   .
4  .   .   m22 m22 .   .   .   .   .   .   .   .   m22 m22 m22 m22
5  .   .   .   .   .   .   mCC mCC .   .   .   .   .   .   .   .
9  .   .   .   .   .   .   m22 m22 m22 m22 m22 m22 m22 m22 m22 m22
a  .   .   .   .   .   .   m22 m22 m22 m22 m22 m22 m22 m22 m22 m22
b  .   .   .   .   .   .   m22 m22 m22 m22 m22 m22 m22 m22 m22 m22
d  .   .   .   .   .   .   mCC mCC .   .   .   .   .   .   .   .
`

// Groups: forms by the reg field of ModRM, /0 to /7 (SDM table A-6).
const x86GroupRows = `
a  FF .. .. .. .. .. .. ..  1A, 8f: pop; the rest is XOP
b  FF .. .. .. .. .. .. .F  11, c6 c7: mov; xabort, xbegin
s  FF FF FF FF FF FF .. ..  8c: mov from segment register
t  FF .. FF FF FF FF .. ..  8e: mov to segment register, not cs
4  FF FF .. .. .. .. .. ..  fe: inc dec
5  FF FF FF F. FF F. FF ..  ff: inc dec call callf jmp jmpf push
6  FF FF FF FF FF FF 88 ..  0f 00: sldt str lldt ltr verr verw lkgs
8  .. .. .. .. FF FF FF FF  0f ba: bt bts btr btc
9  .. F. .. 1. 1. 1. 77 17  0f c7: cmpxchg8b xrstors xsavec xsaves vmptrld/rdrand vmptrst/rdseed
c  .. .. .3 .. .3 .. .3 ..  12, 0f 71: psrlw psraw psllw
d  .. .. .3 .. .3 .. .3 ..  13, 0f 72: psrld psrad pslld
e  .. .. .3 .2 .. .. .3 .2  14, 0f 73: psrlq psrldq psllq pslldq
f  14 14 14 14 54 15 7F 31  15, 0f ae: fxsave to clflush, rdfsbase to sfence
w  4. 4. 4. 4. .. .. .. ..  0f 38 d8: wide key locker
r  .4 .. .. .. .. .. .. ..  0f 3a f0: hreset
C  .. .. .2 .. .2 .. .2 ..  VEX 12
D  .. .. .2 .. .2 .. .2 ..  VEX 13
E  .. .. .2 .2 .. .. .2 .2  VEX 14
F  .. .. 1. 1. .. .. .. ..  VEX 15: vldmxcsr vstmxcsr
h  .. 11 11 11 .. .. .. ..  VEX 17, 0f 38 f3: blsr blsmsk blsi
q  39 .8 .8 .8 .8 .8 .8 .8  VEX 0f 38 49: tile configuration, tilezero
X  .. .. 22 .. 22 .. 22 ..  EVEX 12
Y  22 22 22 .. 22 .. 22 ..  EVEX 13, with rotates
Z  .. .. 22 22 .. .. 22 22  EVEX 14
`

// x86System is 0f 01 with a register operand, c0 to ff: the forms of each ModRM.
var x86System = [64]byte{
	// c0: enclv vmcall vmlaunch vmresume vmxoff pconfig wrmsrns -
	1, 1, 1, 1, 1, 1, ppNone | ppF3 | ppF2, 0,
	// c8: monitor mwait clac/eretu/erets stac tdcall seamret seamops encls/seamcall
	1, 1, ppNone | ppF3 | ppF2, 1, pp66, pp66, pp66, ppNone | pp66,
	// d0: xgetbv xsetbv - - vmfunc xend xtest enclu
	1, 1, 0, 0, 1, 1, 1, 1,
	// d8: vmrun vmmcall/vmgexit vmload vmsave stgi clgi skinit invlpga
	1, ppNone | ppF3 | ppF2, 1, 1, 1, 1, 1, 1,
	// e0: smsw r, the prefixes are as for any other integer instruction
	15, 15, 15, 15, 15, 15, 15, 15,
	// e8: serialize/setssbsy/xsusldtrk xresldtrk saveprevssp - uiret testui rdpkru/clui wrpkru/stui
	ppNone | ppF3 | ppF2, ppF2, ppF3, 0, ppF3, ppF3, ppNone | ppF3, ppNone | ppF3,
	// f0: lmsw r
	15, 15, 15, 15, 15, 15, 15, 15,
	// f8: swapgs rdtscp monitorx/mcommit mwaitx clzero rdpru/rmpquery
	// invlpgb/rmpadjust/rmpupdate tlbsync/psmash/pvalidate
	1, 15, ppNone | ppF3, 1, 1, ppNone | ppF3, ppNone | ppF3 | ppF2, ppNone | ppF3 | ppF2,
}

// x86FPU is d8 to df (SDM tables ), as bits: mem bit n is /n with a
// memory operand, reg[r] bit n is register operand n of /r.
var x86FPU = [8]struct {
	mem byte
	reg [8]byte
}{
	{0xff, [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}, // d8
	{0xfd, [8]byte{0xff, 0xff, 0x01, 0, 0x33, 0x7f, 0xff, 0xff}},    // d9: d0 fnop, e0 fchs fabs ftst fxam, e8 constants
	{0xff, [8]byte{0xff, 0xff, 0xff, 0xff, 0, 0x02, 0, 0}},          // da: fcmov, e9 fucompp
	{0xaf, [8]byte{0xff, 0xff, 0xff, 0xff, 0x0c, 0xff, 0xff, 0}},    // db: fcmovn, e2 fnclex fninit
	{0xff, [8]byte{0xff, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff}},       // dc
	{0xdf, [8]byte{0xff, 0, 0xff, 0xff, 0xff, 0xff, 0, 0}},          // dd
	{0xff, [8]byte{0xff, 0xff, 0, 0x02, 0xff, 0xff, 0xff, 0xff}},    // de: d9 fcompp
	{0xff, [8]byte{0, 0, 0, 0, 0x01, 0xff, 0xff, 0}},                // df: e0 fnstsw ax
}

// x86Maps are the parsed maps by kind of encoding and map number (the mmm field
// of VEX and EVEX; 0 is the one-byte map).
var x86Maps = struct {
	legacy [4]x86Map
	vex    [4]x86Map
	evex   [8]x86Map
}{
	legacy: [4]x86Map{
		parseX86Map(x86OneByte), parseX86Map(x860F), parseX86Map(x860F38), parseX86Map(x860F3A),
	},
	vex: [4]x86Map{
		1: parseX86Map(x86VEX0F), 2: parseX86Map(x86VEX0F38), 3: parseX86Map(x86VEX0F3A),
	},
	evex: [8]x86Map{
		1: parseX86Map(x86EVEX0F), 2: parseX86Map(x86EVEX0F38), 3: parseX86Map(x86EVEX0F3A),
		5: parseX86Map(x86EVEXMap5), 6: parseX86Map(x86EVEXMap6),
	},
}

var x86Groups = parseX86Groups(x86GroupRows)

const hexDigits = "0123456789abcdef"

// parseX86Map reads the grid of a map.
func parseX86Map(grid string) (m x86Map) {
	for line := range strings.Lines(grid) {
		f := strings.Fields(line)
		if len(f) != 17 {
			continue
		}
		row := strings.IndexByte(hexDigits, f[0][0])
		for col, cell := range f[1:] {
			if cell == "." {
				continue
			}
			c := x86Cell{shape: cell[0], forms: x86Forms{15, 15}}
			switch {
			case len(cell) == 1:
			case cell[1] == 'g':
				c.group = cell[2]
			default:
				c.forms = parseX86Forms(cell[1:])
			}
			m[row<<4|col] = c
		}
	}
	return m
}

// parseX86Groups reads the rows of x86GroupRows.
func parseX86Groups(rows string) (g [128][8]x86Forms) {
	for line := range strings.Lines(rows) {
		f := strings.Fields(line)
		if len(f) < 9 {
			continue
		}
		for reg, s := range f[1:9] {
			g[f[0][0]][reg] = parseX86Forms(s)
		}
	}
	return g
}

// parseX86Forms reads two digits; '.' is none.
func parseX86Forms(s string) x86Forms {
	digit := func(b byte) byte {
		return byte(max(0, strings.IndexByte("0123456789ABCDEF", b)))
	}
	return x86Forms{mem: digit(s[0]), reg: digit(s[1])}
}

// x86Inst is an instruction while it is read.
type x86Inst struct {
	code []byte // at most x86MaxLen bytes
	pos  int    // offset of the next byte to read

	opSize16  bool // 66
	addr32    bool // 67
	lock      bool // f0
	rep       byte // f2 or f3, whichever came last; 0 for none
	rex       byte // 0 for none
	legacyMap byte // 0 to 3 for the legacy maps, noLegacyMap for VEX and EVEX

	pp    byte // the mandatory prefix in effect, one pp bit
	op    byte
	modrm byte
	cell  *x86Cell
	out   Inst
}

const (
	rexW        = 8
	rexR        = 4
	noLegacyMap = 0xff
)

// decodeX86 is Arch.Decode. An immediate of several parts (enter, extrq,
// insertq) is reported as one.
func decodeX86(code []byte) (Inst, bool) {
	if len(code) > x86MaxLen {
		code = code[:x86MaxLen]
	}
	x := x86Inst{code: code}
	if !x.prefixes() || !x.opcode() || !x.operands() || !x.tail() {
		return Inst{}, false
	}
	x.out.Len = x.pos
	return x.out, true
}

// next reads a byte. ok is false at the end of the code.
func (x *x86Inst) next() (b byte, ok bool) {
	if x.pos >= len(x.code) {
		return 0, false
	}
	b = x.code[x.pos]
	x.pos++
	return b, true
}

// skip passes n bytes.
func (x *x86Inst) skip(n int) bool {
	x.pos += n
	return x.pos <= len(x.code)
}

// prefixes reads the legacy prefixes and REX.
func (x *x86Inst) prefixes() bool {
	for ; x.pos < len(x.code); x.pos++ {
		b := x.code[x.pos]
		switch b {
		case 0x66:
			x.opSize16 = true
		case 0x67:
			x.addr32 = true
		case 0xf0:
			x.lock = true
		case 0xf2, 0xf3:
			x.rep = b
		case 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65: // segments, branch hints
		default:
			if b&0xf0 != 0x40 {
				return true
			}
			if x.rex != 0 { // only one REX is allowed (SDM vol. 2, 2.2.1)
				return false
			}
			x.rex = b
			continue
		}
		x.rex = 0
	}
	return false
}

// opcode reads escapes, VEX and EVEX and the opcode, and finds its cell.
func (x *x86Inst) opcode() bool {
	b, ok := x.next()
	if !ok {
		return false
	}
	switch b {
	case 0xc4, 0xc5:
		return x.vex(b)
	case 0x62:
		return x.evex()
	case 0x0f:
		x.legacyMap = 1
		if b, ok = x.next(); !ok {
			return false
		}
		if b == 0x38 || b == 0x3a {
			x.legacyMap = 2 + b>>1&1
			if b, ok = x.next(); !ok {
				return false
			}
		}
	}
	x.op = b
	x.cell = &x86Maps.legacy[x.legacyMap][b]
	x.pp = ppNone
	switch { // f2 and f3 overrule 66, which then is the operand size
	case x.rep == 0xf3:
		x.pp = ppF3
	case x.rep == 0xf2:
		x.pp = ppF2
	case x.opSize16:
		x.pp = pp66
	}
	return x.cell.shape != 0
}

// vex reads VEX behind its first byte, and the opcode.
func (x *x86Inst) vex(first byte) bool {
	mmm, n := byte(1), 1
	if first == 0xc4 {
		n = 2
	}
	if x.pos+n >= len(x.code) {
		return false
	}
	if first == 0xc4 {
		mmm = x.code[x.pos] & 0x1f
	}
	if mmm >= byte(len(x86Maps.vex)) {
		return false
	}
	last := x.code[x.pos+n-1]
	x.pos += n
	return x.vector(&x86Maps.vex[mmm], last&3)
}

// evex reads EVEX behind its first byte, and the opcode.
func (x *x86Inst) evex() bool {
	if x.pos+3 >= len(x.code) {
		return false
	}
	p0, p1 := x.code[x.pos], x.code[x.pos+1]
	if p0&8 != 0 || p1&4 == 0 { // fixed bits; APX uses them
		return false
	}
	x.pos += 3
	return x.vector(&x86Maps.evex[p0&7], p1&3)
}

// vector reads the opcode behind VEX or EVEX. Neither stands after REX or a
// prefix that it has a field for.
func (x *x86Inst) vector(m *x86Map, pp byte) bool {
	if x.rex != 0 || x.opSize16 || x.rep != 0 || x.lock {
		return false
	}
	x.legacyMap = noLegacyMap
	x.pp = 1 << pp
	x.op, _ = x.next() // vex and evex have checked that it is there
	x.cell = &m[x.op]
	return x.cell.shape != 0
}

// operands reads ModRM, SIB and displacement, and checks that the instruction
// exists in this form.
func (x *x86Inst) operands() bool {
	switch x.cell.shape {
	case '-', 'b', 'z', 'v', 'w', 'e', 'o', 'j', 'J', 'L', 'c', 'C', 'r', 'R':
		return x.cell.forms.reg&x.pp != 0 && !x.lock
	}
	var ok bool
	if x.modrm, ok = x.next(); !ok {
		return false
	}
	if x.cell.shape == 'k' {
		return x.controlRegister() && !x.lock
	}
	if !x.defined() || x.lock && !x.lockable() {
		return false
	}
	return x.modrm >= 0xc0 || x.memory()
}

// memory reads SIB and displacement.
func (x *x86Inst) memory() bool {
	mod, base := x.modrm>>6, x.modrm&7
	hasSIB := base == 4
	if hasSIB {
		sib, ok := x.next()
		if !ok {
			return false
		}
		base = sib & 7
	} else if x.cell.shape == 's' {
		return false
	}
	switch {
	case mod == 1:
		return x.skip(1)
	case mod == 2:
		return x.skip(4)
	case base == 5: // no base register; without SIB it is RIP
		if !hasSIB {
			x.out.DispOff = x.pos
		}
		return x.skip(4)
	}
	return true
}

// defined tells whether the opcode exists with this ModRM and mandatory prefix.
func (x *x86Inst) defined() bool {
	reg, rm, isReg := x.modrm>>3&7, x.modrm&7, x.modrm >= 0xc0
	forms := x.cell.forms
	switch x.cell.shape {
	case 'f':
		fpu := &x86FPU[x.op&7]
		if isReg {
			return fpu.reg[reg]>>rm&1 != 0
		}
		return fpu.mem>>reg&1 != 0
	case '7':
		switch {
		case isReg:
			return x86System[x.modrm&0x3f]&x.pp != 0
		case reg == 5: // rstorssp
			return x.pp == ppF3
		}
		return true
	}
	if g := x.cell.group; g != 0 {
		forms = x86Groups[g&0x7f][reg]
		if !x.exactRM(g) {
			return false
		}
	}
	if x.cell.shape == 'y' && x.pp == pp66 && reg != 0 { // extrq is /0
		return false
	}
	if isReg {
		return forms.reg&x.pp != 0
	}
	return forms.mem&x.pp != 0
}

// exactRM checks the instructions of a group whose whole ModRM is fixed.
func (x *x86Inst) exactRM(group byte) bool {
	if x.modrm < 0xc0 {
		return true
	}
	switch {
	case group == 'b' && x.modrm >= 0xf8: // xabort c6 f8, xbegin c7 f8
		return x.modrm == 0xf8
	case group == 'r': // hreset f3 0f 3a f0 c0
		return x.modrm == 0xc0
	case group == 'q': // tilerelease c0; tilezero has its register in reg
		return x.modrm&7 == 0
	}
	return true
}

// controlRegister checks mov from and to CR0, 2, 3, 4, 8 and DR0 to 7; their
// operand is a register whatever mod says.
func (x *x86Inst) controlRegister() bool {
	reg := x.modrm >> 3 & 7
	if x.rex&rexR != 0 {
		reg |= 8
	}
	if x.op&1 != 0 {
		return reg < 8
	}
	return reg <= 8 && 0b1_0001_1101>>reg&1 != 0
}

// lockable tells whether the instruction may have a lock prefix (SDM vol. 2,
// LOCK): those that read, change and write memory.
func (x *x86Inst) lockable() bool {
	if x.modrm >= 0xc0 {
		return false
	}
	reg := x.modrm >> 3 & 7
	switch x.legacyMap {
	case 0:
		switch x.op {
		case 0x80, 0x81, 0x83: // all but cmp
			return reg != 7
		case 0x86, 0x87: // xchg
			return true
		case 0xf6, 0xf7: // not neg
			return reg == 2 || reg == 3
		case 0xfe, 0xff: // inc dec
			return reg < 2
		}
		return x.op < 0x38 && x.op&7 < 2 // add or adc sbb and sub xor
	case 1:
		switch x.op {
		case 0xab, 0xb3, 0xbb, 0xb0, 0xb1, 0xc0, 0xc1: // bts btr btc cmpxchg xadd
			return true
		case 0xba: // all but bt
			return reg > 4
		case 0xc7: // cmpxchg8b
			return reg == 1
		}
	}
	return false
}

// tail reads the immediate or branch displacement and decides the flow.
func (x *x86Inst) tail() bool {
	switch x.cell.shape {
	case '-', 'm', 's', 'k', 'f':
		return true
	case 'b', 'B':
		return x.imm(1)
	case 'w':
		return x.imm(2)
	case 'e':
		return x.imm(3)
	case 'z':
		return x.imm(x.operandSize())
	case 'Z':
		if x.modrm == 0xf8 && x.cell.group == 'b' { // xbegin
			return !x.opSize16 && x.branch(Branch, 4)
		}
		return x.imm(x.operandSize())
	case 'v':
		if x.rex&rexW != 0 {
			return x.imm(8)
		}
		return x.imm(x.operandSize())
	case 'c':
		return x.branch(Branch, 1)
	case 'C':
		return x.branch(Branch, 4)
	case 'j':
		return x.branch(Jump, 1)
	case 'J':
		return x.branch(Jump, 4)
	case 'L':
		return x.branch(Call, 4)
	}
	return x.rareTail()
}

// rareTail is tail for the other shapes.
func (x *x86Inst) rareTail() bool {
	reg := x.modrm >> 3 & 7
	switch x.cell.shape {
	case 'r', 'u':
		x.out.Flow = Return
	case 'R':
		x.out.Flow = Return
		return x.imm(2)
	case 'i': // call callf jmp jmpf
		if reg >= 2 && reg <= 5 {
			x.out.Flow = Indirect
		}
	case 'h':
		if reg < 2 {
			return x.imm(1)
		}
	case 'H':
		if reg < 2 {
			return x.imm(x.operandSize())
		}
	case 'y':
		if x.pp != ppNone {
			return x.imm(2)
		}
	case 'o':
		if x.addr32 {
			return x.skip(4)
		}
		return x.skip(8)
	case '7':
		eret := x.modrm == 0xca && x.pp != ppNone // erets, eretu (FRED)
		uiret := x.modrm == 0xec
		if eret || uiret {
			x.out.Flow = Return
		}
	}
	return true
}

// operandSize is the size in bytes of an immediate that is never 8.
func (x *x86Inst) operandSize() int {
	if x.opSize16 && x.rex&rexW == 0 {
		return 2
	}
	return 4
}

func (x *x86Inst) imm(size int) bool {
	x.out.ImmOff, x.out.ImmSize = x.pos, size
	return x.skip(size)
}

func (x *x86Inst) branch(f Flow, size int) bool {
	x.out.Flow = f
	x.out.RelOff, x.out.RelSize = x.pos, size
	return x.skip(size)
}

// x86Relocs is the table of the x86-64 psABI, section 4.4. Klp marks what
// arch/x86/kernel/module.c applies, 6.1 to 7.x.
var x86Relocs = map[uint32]RelocType{
	0:  {Name: "R_X86_64_NONE", Klp: true},
	1:  {Name: "R_X86_64_64", Size: 8, Klp: true},
	2:  {Name: "R_X86_64_PC32", Size: 4, PCRel: true, Klp: true},
	3:  {Name: "R_X86_64_GOT32", Size: 4},
	4:  {Name: "R_X86_64_PLT32", Size: 4, PCRel: true, Klp: true},
	6:  {Name: "R_X86_64_GLOB_DAT", Size: 8},
	7:  {Name: "R_X86_64_JMP_SLOT", Size: 8},
	8:  {Name: "R_X86_64_RELATIVE", Size: 8},
	9:  {Name: "R_X86_64_GOTPCREL", Size: 4, PCRel: true},
	10: {Name: "R_X86_64_32", Size: 4, Klp: true},
	11: {Name: "R_X86_64_32S", Size: 4, Klp: true},
	12: {Name: "R_X86_64_16", Size: 2},
	13: {Name: "R_X86_64_PC16", Size: 2, PCRel: true},
	14: {Name: "R_X86_64_8", Size: 1},
	15: {Name: "R_X86_64_PC8", Size: 1, PCRel: true},
	16: {Name: "R_X86_64_DTPMOD64", Size: 8},
	17: {Name: "R_X86_64_DTPOFF64", Size: 8},
	18: {Name: "R_X86_64_TPOFF64", Size: 8},
	19: {Name: "R_X86_64_TLSGD", Size: 4, PCRel: true},
	20: {Name: "R_X86_64_TLSLD", Size: 4, PCRel: true},
	21: {Name: "R_X86_64_DTPOFF32", Size: 4},
	22: {Name: "R_X86_64_GOTTPOFF", Size: 4, PCRel: true},
	23: {Name: "R_X86_64_TPOFF32", Size: 4},
	24: {Name: "R_X86_64_PC64", Size: 8, PCRel: true, Klp: true},
	25: {Name: "R_X86_64_GOTOFF64", Size: 8},
	26: {Name: "R_X86_64_GOTPC32", Size: 4, PCRel: true},
	27: {Name: "R_X86_64_GOT64", Size: 8},
	28: {Name: "R_X86_64_GOTPCREL64", Size: 8, PCRel: true},
	29: {Name: "R_X86_64_GOTPC64", Size: 8, PCRel: true},
	30: {Name: "R_X86_64_GOTPLT64", Size: 8},
	31: {Name: "R_X86_64_PLTOFF64", Size: 8},
	32: {Name: "R_X86_64_SIZE32", Size: 4},
	33: {Name: "R_X86_64_SIZE64", Size: 8},
	34: {Name: "R_X86_64_GOTPC32_TLSDESC", Size: 4, PCRel: true},
	35: {Name: "R_X86_64_TLSDESC_CALL"},
	41: {Name: "R_X86_64_GOTPCRELX", Size: 4, PCRel: true},
	42: {Name: "R_X86_64_REX_GOTPCRELX", Size: 4, PCRel: true},
}
