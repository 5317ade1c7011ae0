// Package verify proves, without booting, that a finished livepatch module is
// right for a kernel. There are three proofs:
//
//   - original: each function that is replaced equals the kernel's, so that the
//     kernel is the one that was rebuilt;
//   - patched: each function, constant and variable that the module carries equals
//     the freshly compiled patched object's, each relocation of the module leads
//     where that object says, and the redirect table names the right functions;
//   - accepted: nothing that the kernel checks when it loads the module fails.
//
// It knows nothing of how the module was made: codegen's plan is no input. What
// it is given beside the module is what the compiler and objtool make of the
// sources, the comparison of original and patched objects (elfdiff), and the
// running kernel (target). It is pure.
//
// Sources: ELF gABI; kernel/module/main.c, kernel/livepatch/core.c,
// arch/x86/kernel/module.c of Linux 6.1 to 7.x; tools/objtool.
package verify
