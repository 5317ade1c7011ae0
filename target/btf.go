package target

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cilium/ebpf/btf"
)

// ErrNoBTF says that a file has no type information: the kernel was built
// without CONFIG_DEBUG_INFO_BTF, or a module without
// CONFIG_DEBUG_INFO_BTF_MODULES.
var ErrNoBTF = errors.New("no BTF")

// Types returns the types of the kernel, from the section .BTF that also a
// stripped image has. The error is ErrNoBTF if the image has none.
// Source: Documentation/bpf/btf.rst.
func (im *Image) Types() (*btf.Spec, error) {
	data := im.BTF()
	if len(data) == 0 {
		return nil, ErrNoBTF
	}
	spec, err := loadBTF(data, nil)
	if err != nil {
		return nil, fmt.Errorf("BTF of the kernel: %w", err)
	}
	return spec, nil
}

// Types returns the types of a module. They refer to those of the kernel that
// the module was built with, which base must be. The error is ErrNoBTF if the
// module has none.
func (m *Module) Types(base *btf.Spec) (*btf.Spec, error) {
	s := m.Object.Section(".BTF")
	if s == nil || len(s.Data) == 0 {
		return nil, ErrNoBTF
	}
	if base == nil {
		return nil, fmt.Errorf("BTF of module %s: the types of the kernel are needed", m.Name)
	}
	spec, err := loadBTF(s.Data, base)
	if err != nil {
		return nil, fmt.Errorf("BTF of module %s: %w", m.Name, err)
	}
	return spec, nil
}

// loadBTF parses raw BTF. The library is not hardened against everything that a
// damaged file may hold.
func loadBTF(data []byte, base *btf.Spec) (spec *btf.Spec, err error) {
	defer func() {
		if p := recover(); p != nil {
			spec, err = nil, fmt.Errorf("damaged: %v", p)
		}
	}()
	if base != nil {
		return btf.LoadSplitSpecFromReader(bytes.NewReader(data), base)
	}
	return btf.LoadSpecFromReader(bytes.NewReader(data))
}
