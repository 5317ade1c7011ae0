# A COMDAT group, a section ordered by another, absolute and hidden symbols, a
# relocation without a symbol, two sections of one name.
	.section .text.shared, "axG", @progbits, shared, comdat
	.weak shared
	.hidden shared
	.type shared, @function
shared:
	call outside
	ret
	.size shared, . - shared

	.section .order, "ao", @progbits, .text.shared
	.quad shared

	.section .twice, "a", @progbits, unique, 1
	.byte 1
	.section .twice, "a", @progbits, unique, 2
	.byte 2

	.text
	.globl absolute
	.set absolute, 0x1234
	.reloc ., R_X86_64_NONE
	nop
