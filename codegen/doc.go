// Package codegen turns the differences of a patch's translation units into
// the material of a livepatch module: Decide makes the plan (what is patched,
// what travels, what every reference becomes), Emit builds one object per
// unit, Finalize turns the linked module's livepatch relocations into the form
// that the kernel reads.
//
// It neither compiles nor links, and it reads no files. Sources:
// Documentation/livepatch/module-elf-format.rst and kernel/livepatch/core.c,
// Linux 6.1 to 7.x.
package codegen
