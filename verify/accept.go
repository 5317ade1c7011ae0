package verify

// The third proof: what the kernel checks when it loads the module. Sources:
// kernel/module/main.c (check_modinfo, check_version, simplify_symbols,
// verify_namespace_is_imported), kernel/module/signing.c,
// kernel/livepatch/core.c (klp_enable_patch and all that it calls),
// arch/x86/kernel/module.c (apply_relocate_add); Linux 6.1 to 7.x.

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/internal/modname"
)

func (c *check) accepted() {
	c.information()
	c.signature()
	c.sections()
	c.redirectTable()
	c.livepatchRelocations()
	c.imports()
	c.integrity()
}

// information judges .modinfo.
func (c *check) information() {
	bad := func(format string, args ...any) {
		c.find(Accepted, ".modinfo", fmt.Sprintf(format, args...), reportHint)
	}
	one := func(key string) string {
		all := c.mod.Modinfo(key)
		if len(all) != 1 {
			bad("it has %d entries %s=", len(all), key)
			return ""
		}
		return all[0]
	}
	if one("livepatch") != "Y" {
		bad("it does not say livepatch=Y: the kernel would refuse klp_enable_patch")
	}
	if l := one("license"); !slices.Contains([]string{"GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL"}, l) {
		bad("licence %q: the symbols of livepatching are for GPL modules only", l)
	}
	if len(c.mod.Name) > maxObjectName || strings.Trim(c.mod.Name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" {
		bad("name %q: at most %d letters, digits and underscores", c.mod.Name, maxObjectName)
	}
	magic := one("vermagic")
	switch want, source := c.v.vermagic(); {
	case want == "":
		c.lacks(Accepted, "the kernel's vermagic is not known: it has no image and no module files")
	case strings.TrimSpace(magic) != want:
		bad("vermagic %q; the kernel's is %q (%s)", magic, want, source)
	default:
		c.count(Accepted, "version string (vermagic) equal to the kernel's", 1)
	}
	if c.v.kernel.Config != nil && c.v.kernel.Config("CONFIG_LIVEPATCH") != "y" {
		c.find(Accepted, "the kernel", "CONFIG_LIVEPATCH is off", "a kernel without it cannot be patched")
	}
}

// vermagic is what the kernel compares a module's with, and where that is from.
func (v *Verifier) vermagic() (text, source string) {
	k := v.kernel
	if k.Image != nil {
		if s, err := k.Image.Text(k.Symtab, "vermagic"); err == nil && s != "" {
			return s, "from its image"
		}
	}
	names := make([]string, 0, len(k.Modules))
	for n := range k.Modules {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		if m := k.Modules[n].Modinfo("vermagic"); len(m) == 1 {
			return strings.TrimSpace(m[0]), "from its module " + n
		}
	}
	return "", ""
}

// signature is demanded by some kernels.
func (c *check) signature() {
	if c.v.kernel.Config == nil || c.signed {
		return
	}
	if c.v.kernel.Config("CONFIG_MODULE_SIG_FORCE") == "y" {
		c.find(Accepted, "the file", "it is not signed, and this kernel loads signed modules only (CONFIG_MODULE_SIG_FORCE)",
			"sign it with the kernel's scripts/sign-file and a key that the kernel trusts")
	}
}

// sections looks at what must be there, and at symbols that the kernel cannot
// resolve.
func (c *check) sections() {
	if c.obj.Section(thisModule) == nil {
		c.find(Accepted, "the file", "it has no section "+thisModule, "name a livepatch module")
	}
	for _, s := range c.obj.Symbols {
		switch {
		case s.Section != nil || s.Type == elf.STT_FILE:
		case s.Shndx == elf.SHN_COMMON:
			c.find(Accepted, s.Name, "it is a common symbol, which the kernel refuses", reportHint)
		case s.Shndx == elfobj.SHNLivepatch:
			if s.Value != 0 || s.Size != 0 || s.Type != elf.STT_NOTYPE || s.Bind == elf.STB_LOCAL {
				c.find(Accepted, s.Name, "a livepatch symbol has a value, size or type, or is local", reportHint)
			}
		case s.Shndx != elf.SHN_UNDEF && s.Shndx != elf.SHN_ABS:
			c.find(Accepted, s.Name, fmt.Sprintf("its section index %v is not known", s.Shndx), reportHint)
		case s.Shndx == elf.SHN_UNDEF && (s.Value != 0 || s.Size != 0):
			c.find(Accepted, s.Name, "an undefined symbol has a value or size", reportHint)
		}
	}
	for _, s := range c.obj.Sections {
		if s.Flags&elf.SHF_ALLOC == 0 {
			continue
		}
		for _, r := range c.relocs[s] {
			if t := c.v.arch[r.Type]; !t.Klp {
				c.find(Accepted, c.where(s, r.Off), fmt.Sprintf("the kernel's module loader does not know relocation type %v", elf.R_X86_64(r.Type)), reportHint)
			}
		}
	}
}

// redirectTable checks what klp_enable_patch checks.
func (c *check) redirectTable() {
	t, err := c.readTables()
	if err != nil {
		c.find(Accepted, "the redirect table", err.Error(), reportHint)
		return
	}
	c.tables = t
	seen := map[string]bool{}
	funcs := 0
	for _, o := range t.objects {
		if seen[o.name] {
			c.find(Accepted, o.where, fmt.Sprintf("object %s is listed twice", o.name), reportHint)
		}
		seen[o.name] = true
		if o.name == "" || len(o.name) > maxObjectName || o.name == VMLinux && c.relocAt(o.at.sec, o.at.off+objectName) != nil {
			c.find(Accepted, o.where, fmt.Sprintf("%q is no name of a module", o.name), reportHint)
		}
		if o.name != VMLinux && c.v.kernel.Modules[o.name] == nil {
			c.find(Accepted, o.where, fmt.Sprintf("this kernel has no module %s", o.name), "name the folder of the kernel's modules with --modules-dir")
			continue
		}
		names := map[string]bool{}
		for _, f := range o.funcs {
			funcs++
			key := fmt.Sprintf("%s,%d", f.name, max(f.pos, 1)) // as sysfs shows it
			if names[key] {
				c.find(Accepted, f.where, fmt.Sprintf("%s is listed twice for %s", key, o.name), reportHint)
			}
			names[key] = true
			c.klpFunction(o, f)
		}
	}
	c.count(Accepted, "functions found in the symbol table", funcs)
}

func (c *check) klpFunction(o klpObject, f klpFunc) {
	if f.name == "" || len(f.name) > maxSymbolName {
		c.find(Accepted, f.where, "the function's name is empty or too long", reportHint)
		return
	}
	at, err := c.v.resolve(o.name, f.name, f.pos)
	if err != nil {
		c.find(Accepted, f.where, fmt.Sprintf("%s,%d of %s: %v", f.name, f.pos, o.name, err), reportHint)
		return
	}
	if !slices.ContainsFunc(c.at[f.newAt], func(s *elfobj.Symbol) bool { return s.Type == elf.STT_FUNC && s.Size > 0 }) {
		c.find(Accepted, f.where, "no function with a size begins where new_func leads", reportHint)
	}
	if why := c.v.traceable(at); why != "" {
		c.find(Accepted, f.where, fmt.Sprintf("%s of %s cannot be redirected: %s", f.name, o.name, why),
			"patch a function that calls it")
	}
}

// livepatchRelocations checks what klp_apply_section_relocs checks.
func (c *check) livepatchRelocations() {
	n := 0
	for _, sec := range c.obj.Sections {
		for _, r := range c.relocs[sec] {
			if r.klp == "" {
				if r.Sym != nil && r.Sym.Shndx == elfobj.SHNLivepatch {
					c.find(Accepted, c.where(sec, r.Off), fmt.Sprintf("an ordinary relocation uses the livepatch symbol %s", r.Sym.Name), reportHint)
				}
				continue
			}
			n++
			c.livepatchRelocation(r)
		}
	}
	c.count(Accepted, "livepatch relocations resolved", n)
}

func (c *check) livepatchRelocation(r *reloc) {
	bad := func(format string, args ...any) {
		c.find(Accepted, c.where(r.sec, r.Off), fmt.Sprintf(format, args...), reportHint)
	}
	if r.Sym == nil || r.Sym.Shndx != elfobj.SHNLivepatch {
		bad("a livepatch relocation uses %s, which is no livepatch symbol", symbolName(r.Sym))
		return
	}
	object, name, pos, ok := klpSymbol(r.Sym.Name)
	switch {
	case !ok:
		bad("%q is not of the form .klp.sym.OBJECT.NAME,POSITION", r.Sym.Name)
		return
	case object == VMLinux && r.klp != VMLinux:
		bad("a relocation that is applied with module %s uses %s of vmlinux, which the kernel refuses", r.klp, name)
	case object != VMLinux && r.klp == VMLinux:
		bad("a relocation that is applied when the livepatch is loaded uses %s of module %s, which need not be there", name, object)
	case r.klp != VMLinux && c.tables != nil && !slices.ContainsFunc(c.tables.objects, func(o klpObject) bool { return o.name == r.klp }):
		bad("nothing of module %s is patched, so that the relocation is never applied", r.klp)
	}
	if r.sec.Flags&elf.SHF_ALLOC != 0 && strings.HasPrefix(r.sec.Name, ".init") && r.klp != VMLinux {
		bad("it lies in %s, which is gone when module %s comes", r.sec.Name, r.klp)
	}
	if _, err := c.v.resolve(object, name, pos); err != nil {
		bad("%s: %v", r.Sym.Name, err)
	}
	size := uint64(c.v.arch[r.Type].Size)
	if d, ok := c.data(place{r.sec, r.Off}, size); !ok || len(bytes.Trim(d, "\x00")) > 0 {
		bad("the place is not zero, and the kernel would refuse to fill it")
	}
}

// imports checks every undefined symbol, and the table of symbol versions.
func (c *check) imports() {
	spaces := c.mod.Modinfo("import_ns")
	needed := map[string]uint32{}
	depends := map[string]string{} // modules that export what is imported -> one of the symbols
	n := 0
	for _, s := range c.obj.Symbols {
		if !s.Undefined() || s.Name == "" {
			continue
		}
		x, ok := c.v.kernel.Exports.Lookup(s.Name)
		if !ok {
			if s.Bind != elf.STB_WEAK {
				c.find(Accepted, s.Name, "the kernel does not export it", reportHint)
			}
			continue
		}
		n++
		if x.Module != VMLinux {
			depends[modname.OfPath(x.Module)] = s.Name
		}
		if only, isModules := strings.CutPrefix(x.Namespace, "module:"); isModules {
			c.find(Accepted, s.Name, "the kernel offers it to the modules "+only+" only", reportHint)
		} else if x.Namespace != "" && !slices.Contains(spaces, x.Namespace) {
			c.find(Accepted, s.Name, fmt.Sprintf("it is in the namespace %s, which the module does not import", x.Namespace), reportHint)
		}
		needed[s.Name] = x.CRC
		if e, have := c.v.exports[s.Name]; x.Module == VMLinux && c.v.exports != nil && (!have || e.HasCRC && e.CRC != x.CRC) {
			c.find(Accepted, s.Name, "the kernel's image does not export it with the version that Module.symvers has",
				"Module.symvers and the image are not of one kernel")
		}
	}
	c.count(Accepted, "imported symbols", n)
	c.dependencies(depends)
	if c.v.kernel.Config != nil && c.v.kernel.Config("CONFIG_MODVERSIONS") == "y" {
		c.versions(needed)
	}
}

// dependencies compares the modules that the livepatch says it needs with those
// whose exports it imports: the tools that load modules load these first.
func (c *check) dependencies(needed map[string]string) {
	var listed []string
	for _, list := range c.mod.Modinfo("depends") {
		for name := range strings.SplitSeq(list, ",") {
			if name != "" {
				listed = append(listed, modname.Canonical(name))
			}
		}
	}
	for _, name := range listed {
		if needed[name] == "" {
			c.find(Accepted, "modinfo", fmt.Sprintf("it depends on module %s, of which it imports nothing", name), reportHint)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(needed)) {
		if !slices.Contains(listed, name) {
			c.find(Accepted, needed[name], fmt.Sprintf("module %s exports it, which need not be loaded: the livepatch does not depend on it", name), reportHint)
		}
	}
}

// versions compares __versions with what the module imports. An entry is a
// checksum in a word and a name, 64 bytes together (struct modversion_info).
func (c *check) versions(needed map[string]uint32) {
	if x, ok := c.v.kernel.Exports.Lookup("module_layout"); ok {
		needed["module_layout"] = x.CRC
	}
	bad := func(where, format string, args ...any) {
		c.find(Accepted, where, fmt.Sprintf(format, args...), reportHint)
	}
	have, err := c.readVersions()
	if err != nil {
		bad("__versions", "%v", err)
		return
	}
	for name, crc := range have {
		want, ok := needed[name]
		switch {
		case !ok:
			bad("__versions", "it lists %s, which the module does not import", name)
		case crc != want:
			bad("__versions", "%s has the version %#x; the kernel's is %#x", name, crc, want)
		}
		delete(needed, name)
	}
	for name := range needed {
		bad("__versions", "it lacks %s", name)
	}
	c.count(Accepted, "symbol versions equal to the kernel's", len(have))
}

// readVersions reads both forms of the table. Source: include/linux/module.h and
// kernel/module/version.c; the extended form, for long names, since 6.14.
func (c *check) readVersions() (map[string]uint32, error) {
	all := map[string]uint32{}
	if s := c.obj.Section("__versions"); s != nil {
		const entry = 64
		if len(s.Data)%entry != 0 {
			return nil, fmt.Errorf("it has %d bytes", len(s.Data))
		}
		for off := 0; off < len(s.Data); off += entry {
			crc := binary.LittleEndian.Uint64(s.Data[off:])
			name, rest, ok := bytes.Cut(s.Data[off+8:off+entry], []byte{0})
			if !ok || crc > 1<<32-1 || len(bytes.Trim(rest, "\x00")) > 0 {
				return nil, fmt.Errorf("entry %d is damaged", off/entry)
			}
			if _, twice := all[string(name)]; twice {
				return nil, fmt.Errorf("%s is listed twice", name)
			}
			all[string(name)] = uint32(crc)
		}
	}
	crcs, names := c.obj.Section("__version_ext_crcs"), c.obj.Section("__version_ext_names")
	if crcs != nil && names != nil {
		list := strings.Split(strings.TrimRight(string(names.Data), "\x00"), "\x00")
		if len(crcs.Data) != 4*len(list) {
			return nil, fmt.Errorf("%d names and %d bytes of checksums", len(list), len(crcs.Data))
		}
		for i, name := range list {
			all[name] = binary.LittleEndian.Uint32(crcs.Data[4*i:])
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("the module has no symbol versions, and the kernel demands them")
	}
	return all, nil
}
