package elfdiff

import (
	"debug/elf"
	"strings"

	"github.com/klpc/klpc/elfobj"
)

// SectionKind is what a section is for. Names are looked at once, here; later
// code switches on the kind.
type SectionKind uint8

// The kinds of sections.
const (
	Ignored     SectionKind = iota // not loaded, or derived from code by objtool or the linker
	Code                           // functions
	Data                           // variables, writable
	ReadOnly                       // constants with an identity of their own
	PerCPU                         // the template of per-CPU variables
	Strings                        // NUL-terminated literals that the linker may merge
	Constants                      // fixed-size literals that the linker may merge
	Table                          // entries that each describe a place in a function
	Replacement                    // replacement code of alternatives
	Exports                        // symbols offered to modules
	ModInfo                        // .modinfo
)

// tableSpec says how the entries of a special section look.
type tableSpec struct {
	// entry is the size of one entry in bytes; 0 means that it follows from
	// the distance between the entries' first relocations. Objects of older
	// kernels have other sizes, see entrySize.
	entry uint64
	// compared is false for tables that only serve the build (objtool) or
	// that follow from the code itself.
	compared bool
}

// Entry sizes: arch/x86/include/asm/{extable,jump_label,alternative}.h.
// struct alt_instr has 12 bytes up to 6.2 and 14 since 6.3, bug_entry 12 and
// 16 since 6.19: both follow from the relocations.
var tables = map[string]tableSpec{
	"__bug_table":       {entry: 0, compared: true},
	"__ex_table":        {entry: 12, compared: true},
	"__jump_table":      {entry: 16, compared: true},
	".altinstructions":  {entry: 0, compared: true},
	".kcfi_traps":       {entry: 4, compared: true},
	".parainstructions": {entry: 16, compared: true},
	".smp_locks":        {entry: 4},
	"__mcount_loc":      {entry: 8},
}

// Sections that objtool or the build derives from code and that objtool makes
// anew for the livepatch, or that the module loader does not need.
var derived = map[string]bool{
	".orc_unwind": true, ".orc_unwind_ip": true, ".orc_header": true,
	".return_sites": true, ".retpoline_sites": true, ".call_sites": true,
	".ibt_endbr_seal": true, ".cfi_sites": true, ".static_call_sites": true,
	".static_call_tramp_key": true, "__patchable_function_entries": true,
	".printk_index": true, ".sframe": true, ".altinstr_replacement": true,
}

func kindOf(s *elfobj.Section) SectionKind {
	name := s.Name
	switch {
	case s.Type == elf.SHT_RELA || s.Type == elf.SHT_GROUP || s.Type == elf.SHT_NOTE:
		return Ignored
	case name == ".altinstr_replacement":
		return Replacement
	case strings.HasPrefix(name, ".discard."):
		return Table // some are not even marked as loaded
	case s.Flags&elf.SHF_ALLOC == 0 || derived[name]:
		return Ignored
	case name == ".modinfo":
		return ModInfo
	case strings.HasPrefix(name, "__ksymtab"), strings.HasPrefix(name, "___ksymtab"),
		strings.HasPrefix(name, "__kcrctab"), strings.HasPrefix(name, "___kcrctab"),
		strings.HasPrefix(name, ".export_symbol"):
		return Exports
	}
	if _, ok := tables[name]; ok || IsRuntimeConst(name) {
		return Table
	}
	switch {
	case strings.HasPrefix(name, ".note"), name == ".BTF", strings.HasPrefix(name, ".BTF."), strings.HasPrefix(name, ".eh_frame"):
		return Ignored
	case s.Flags&elf.SHF_EXECINSTR != 0:
		return Code
	case s.Flags&elf.SHF_STRINGS != 0 && s.Flags&elf.SHF_MERGE != 0:
		return Strings
	case s.Flags&elf.SHF_MERGE != 0 && s.EntSize > 0:
		return Constants
	case strings.HasPrefix(name, ".data..percpu"):
		return PerCPU
	case s.Flags&elf.SHF_WRITE == 0, strings.HasPrefix(name, ".rodata"), strings.HasPrefix(name, ".data.rel.ro"):
		return ReadOnly
	}
	return Data
}

// IsRuntimeConst tells whether a section lists instructions whose immediate
// the kernel replaces by a value while it boots. Source:
// arch/x86/include/asm/runtime-const.h, since 6.11: runtime_ptr_SYM holds the
// places of 8-byte immediates, runtime_shift_SYM those of shift counts, each as
// a 4-byte PC-relative offset.
func IsRuntimeConst(section string) bool {
	return strings.HasPrefix(section, "runtime_ptr_") || strings.HasPrefix(section, "runtime_shift_") ||
		strings.HasPrefix(section, "runtime_mask_")
}

// specOf says how the entries of a table look.
func specOf(name string) tableSpec {
	if IsRuntimeConst(name) {
		return tableSpec{entry: 4, compared: true}
	}
	return tables[name]
}

// initSection tells whether a section is thrown away once the kernel has
// booted or the module is loaded, or is only used when a module goes.
// Source: include/asm-generic/vmlinux.lds.h, INIT_SECTIONS and EXIT_SECTIONS.
func initSection(name string) bool {
	for _, p := range []string{
		".init.", ".initcall", ".con_initcall", ".exit.", ".exitcall", ".meminit.", ".memexit.",
		".init_array", ".fini_array", ".ctors", ".dtors",
		".devinit.", ".x86_cpu_dev.init", ".altinstr_aux.init", ".setup.", ".parainstructions.init",
	} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return strings.HasSuffix(name, ".init") && !ownSection(name)
}

// isRegistration tells whether a function is one that a compiler makes for the
// sanitizers and for coverage: constructors and destructors, which run while the
// kernel boots or a module comes and goes. Sources: gcc/coverage.cc, gcc/asan.cc
// (cgraph_build_static_cdtor), LLVM's AddressSanitizer and GCOVProfiling.
func isRegistration(name string) bool {
	for _, p := range []string{"_sub_I_", "_sub_D_", "_GLOBAL__sub_I_", "_GLOBAL__sub_D_", "__llvm_gcov_"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return strings.HasSuffix(name, "san.module_ctor") || strings.HasSuffix(name, "san.module_dtor")
}

// isTraceOutput tells whether a function only prints what a trace event has
// recorded. Source: include/trace/trace_events.h, DECLARE_EVENT_CLASS.
func isTraceOutput(name string) bool { return strings.HasPrefix(name, "trace_raw_output_") }

// isTraceText tells whether a variable tells user space how a trace event is
// printed. Source: as above.
func isTraceText(name string) bool { return strings.HasPrefix(name, "print_fmt_") }

// eventRecords are arrays that the kernel reads while it boots or a module
// comes, of what can be traced. Source: include/asm-generic/vmlinux.lds.h.
var eventRecords = map[string]bool{
	"__tracepoints_ptrs": true, "_ftrace_events": true, "_ftrace_eval_map": true,
	"__bpf_raw_tp_map": true, "__syscalls_metadata": true,
}

// ownSection tells whether a section is named for one function or variable,
// which may well be called "init" (-ffunction-sections, -fdata-sections).
func ownSection(name string) bool {
	for _, p := range []string{".text.", ".data.", ".bss.", ".rodata."} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// nameKey is a symbol name without the parts that the compiler numbers.
type nameKey struct {
	base     string // "count" for count.5, "foo.constprop" for foo.constprop.0
	numbered bool   // a compiler-chosen number was cut off
}

// keyOf cuts the numbers from a symbol name. Source: GCC's private and clone
// names (gcc/cgraphclones.cc, varasm.cc: NAME.N, NAME.constprop.N) and the
// kernel's __UNIQUE_ID (include/linux/compiler.h).
func keyOf(name string) nameKey {
	if i := strings.Index(name, "__UNIQUE_ID_"); i >= 0 {
		return nameKey{base: strings.TrimRight(name, "._0123456789"), numbered: true}
	}
	if strings.HasPrefix(name, "__BTF_ID__") { // include/linux/btf_ids.h: the line and a counter at the end
		return nameKey{base: strings.TrimRight(name, "0123456789"), numbered: true}
	}
	if !strings.Contains(name, ".") {
		return nameKey{base: name}
	}
	parts := strings.Split(name, ".")
	kept := parts[:1]
	numbered := false
	for _, p := range parts[1:] {
		if p != "" && strings.Trim(p, "0123456789") == "" {
			numbered = true
			continue
		}
		kept = append(kept, p)
	}
	return nameKey{base: strings.Join(kept, "."), numbered: numbered}
}

// sourceName is the name that the function has in the source.
func sourceName(name string) string {
	if i := strings.IndexByte(name, '.'); i > 0 {
		return name[:i]
	}
	return name
}

// isCold tells whether a name is that of the unlikely part that GCC splits
// from a function; it has no entry of its own.
func isCold(name string) bool {
	i := strings.LastIndex(name, ".cold")
	return i > 0 && strings.Trim(name[i+len(".cold"):], ".0123456789") == ""
}

// coldParent is the name of the function that a cold part belongs to.
func coldParent(name string) string { return name[:strings.LastIndex(name, ".cold")] }

// bookkeeping holds the base names of static locals that the kernel's macros
// and the compiler make. Each copy serves one place in the code, so a new copy
// may travel with a changed function when the old one cannot be identified or
// its content differs. Sources, by macro: WARN_ONCE and friends
// (__already_done, __warned, __print_once, ___done), lockdep (__key),
// __func__ and its kin, printk_ratelimited and friends (_rs), dynamic debug
// (__UNIQUE_ID_ddebug), printk index (_entry, _entry_ptr),
// trace_printk (___tp_str), netlink extack (__msg), alloc tags (_alloc_tag).
var bookkeeping = map[string]bool{
	"__already_done": true, "__warned": true, "__print_once": true, "___done": true,
	"__key": true, "__func__": true, "__FUNCTION__": true, "__PRETTY_FUNCTION__": true,
	"_rs": true, "_entry": true, "_entry_ptr": true, "__msg": true,
	"___tp_str": true, "_alloc_tag": true, "__UNIQUE_ID_ddebug": true, "trace_printk_fmt": true,
}

// bookkeeping tells whether a name is that of a macro's static local: NAME.N
// as gcc writes it, FUNC.NAME or __func__.FUNC as clang does. A variable of the
// file that only has such a name is data like any other.
func (k nameKey) bookkeeping() bool {
	if strings.HasPrefix(k.base, "__gcov") || strings.HasPrefix(k.base, "__llvm_gcov_ctr") || strings.HasPrefix(k.base, "__llvm_gcda_") {
		return true // counters of CONFIG_GCOV_KERNEL, and what describes them
	}
	i := strings.LastIndexByte(k.base, '.')
	if i < 0 {
		return k.numbered && bookkeeping[k.base]
	}
	first, _, _ := strings.Cut(k.base, ".")
	return bookkeeping[k.base[i+1:]] || funcNames[first]
}

// funcNames are the names by which a function knows its own.
var funcNames = map[string]bool{"__func__": true, "__FUNCTION__": true, "__PRETTY_FUNCTION__": true}

// compilerConst tells whether a read-only object was made by the compiler out
// of an expression: a switch turned into a table or an aggregate initialiser.
// Nothing in the source can compare or keep its address as an identity.
func compilerConst(name string) bool {
	return strings.HasPrefix(name, "CSWTCH.") || strings.HasPrefix(name, "switch.table.") ||
		strings.HasPrefix(name, "C.") && keyOf(name).numbered || strings.HasPrefix(name, ".L")
}
