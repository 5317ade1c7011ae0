package verify

import (
	"github.com/cilium/ebpf/btf"
)

// layoutFromTypes reads the layout of struct module from the kernel's BTF.
func layoutFromTypes(k Kernel) (moduleLayout, bool) {
	spec, err := k.Image.Types()
	if err != nil {
		return moduleLayout{}, false
	}
	var m *btf.Struct
	if err := spec.TypeByName("module", &m); err != nil {
		return moduleLayout{}, false
	}
	l := moduleLayout{size: uint64(m.Size), source: "its BTF"}
	l.sizes = map[string]uint64{}
	for _, name := range []string{"klp_object", "klp_func"} {
		var s *btf.Struct
		if err := spec.TypeByName(name, &s); err == nil {
			l.sizes[name] = uint64(s.Size)
		}
	}
	found := 0
	for _, f := range m.Members {
		off := uint64(f.Offset.Bytes())
		switch f.Name {
		case "name":
			size, err := btf.Sizeof(f.Type)
			if err != nil {
				return moduleLayout{}, false
			}
			l.name, l.nameSize = off, uint64(size)
		case "init":
			l.init = off
		case "exit":
			l.exit = off
		default:
			continue
		}
		found++
	}
	return l, found == 3
}
