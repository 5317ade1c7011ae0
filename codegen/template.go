package codegen

import (
	"fmt"

	"github.com/klpc/klpc/kmodtmpl"
)

// Template returns what the module's init file is rendered from. prebuilt are
// the emitted objects' names without ".o".
func (p *Plan) Template(name string, replace bool, prebuilt []string) kmodtmpl.Data {
	d := kmodtmpl.Data{Name: name, Replace: replace, Namespaces: p.Namespaces, Prebuilt: prebuilt}
	for _, o := range p.Objects {
		if len(o.Funcs) == 0 {
			continue // carries new functions only
		}
		t := kmodtmpl.Object{Name: o.Name}
		if o.Name == VMLinux {
			t.Name = ""
		}
		for _, f := range o.Funcs {
			t.Funcs = append(t.Funcs, kmodtmpl.Func{OldName: f.Name, Sympos: f.Sympos, Pointer: fmt.Sprint(FuncPointer, f.ID), Source: f.Source})
		}
		for _, c := range o.Callbacks {
			t.Callbacks = append(t.Callbacks, kmodtmpl.Callback{Field: c.Kind, Pointer: fmt.Sprint(CallbackPointer, c.ID), Name: c.Name})
		}
		d.Objects = append(d.Objects, t)
	}
	return d
}
