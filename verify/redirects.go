package verify

import (
	"debug/elf"
	"errors"
	"slices"
	"strings"

	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/modsource"
)

// Redirects is what a module says about itself, before anything of it is proven.
type Redirects struct {
	Name       string
	Replace    bool
	Namespaces []string
	Objects    []RedirectedObject
	// Modules are the modules that the livepatch names anywhere, sorted.
	Modules []string
	// Source is the content of modsource.Section; nil if there is none.
	Source []byte
}

// RedirectedObject is one patched object.
type RedirectedObject struct {
	Name      string
	Funcs     []RedirectedFunc
	Callbacks []string // kinds, such as pre_patch
}

// RedirectedFunc is one redirected function.
type RedirectedFunc struct {
	Name   string
	Sympos int
}

// ReadRedirects reads the redirect table of a module that klpc has made.
func ReadRedirects(data []byte) (Redirects, error) {
	c := &check{v: &Verifier{}, report: &Report{}}
	if !c.open(data) {
		return Redirects{}, errors.New(c.report.Findings[0].Detail)
	}
	r := Redirects{Name: c.mod.Name, Namespaces: c.mod.Modinfo("import_ns")}
	if s := c.obj.Section(modsource.Section); s != nil {
		r.Source = s.Data
	}
	for _, s := range c.obj.Symbols {
		if object, _, _, ok := klpSymbol(s.Name); ok && s.Shndx == elfobj.SHNLivepatch && object != VMLinux {
			r.Modules = append(r.Modules, object)
		}
	}
	t, err := c.readTables()
	if err == nil {
		r.Replace = t.replace
		for _, o := range t.objects {
			x := RedirectedObject{Name: o.name}
			if o.name != VMLinux {
				r.Modules = append(r.Modules, o.name)
			}
			for _, f := range o.funcs {
				x.Funcs = append(x.Funcs, RedirectedFunc{f.name, f.pos})
			}
			for _, slot := range o.callbacks {
				x.Callbacks = append(x.Callbacks, callbackKinds()[(slot.off-o.at.off-objectCallbacks)/8])
			}
			r.Objects = append(r.Objects, x)
		}
	}
	slices.Sort(r.Modules)
	r.Modules = slices.Compact(r.Modules)
	return r, nil // a table that cannot be read is a finding of the third proof
}

// callbackKinds are the pointers of struct klp_callbacks, in their order.
func callbackKinds() []string {
	return []string{"pre_patch", "post_patch", "pre_unpatch", "post_unpatch"}
}

// IsDebug tells whether a section is debug information, or relocations for it,
// which nothing that is verified depends on.
func IsDebug(s *elfobj.Section) bool {
	if s.Type == elf.SHT_RELA && s.Target != nil {
		return IsDebug(s.Target)
	}
	return s.Flags&elf.SHF_ALLOC == 0 && strings.HasPrefix(s.Name, ".debug")
}
