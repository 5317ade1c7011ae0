package store

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/klpc/klpc/inspect"
	"github.com/klpc/klpc/internal/modname"
	"github.com/klpc/klpc/modsource"
	"github.com/klpc/klpc/target"
)

// Module is a livepatch module that can be installed.
type Module struct {
	Name    string
	Release string // of the kernel that it was built for, from vermagic
	SHA256  string
	Replace *bool
	Objects []Object
	// Sources are the names of the patches that it was made from, CVEs those that
	// their names and texts speak of, as far as the module says so.
	Sources []string
	CVEs    []string
	data    []byte
}

// ReadModule reads a livepatch module's contents.
func ReadModule(data []byte) (*Module, error) {
	m, err := inspect.Read(data)
	if err != nil {
		return nil, err
	}
	out := &Module{Name: modname.Canonical(m.Name), SHA256: Sum(data), Replace: m.Replace, Objects: []Object{}, data: data}
	for _, t := range m.Modinfo {
		if t.Key == "vermagic" {
			out.Release, _, _ = strings.Cut(t.Value, " ")
		}
	}
	for _, o := range m.Objects {
		obj := Object{Name: o.Name, Functions: []Function{}}
		for _, f := range o.Functions {
			obj.Functions = append(obj.Functions, Function{f.Name, f.Sympos})
		}
		out.Objects = append(out.Objects, obj)
	}
	if out.Sources, out.CVEs, err = sources(data); err != nil {
		return nil, err
	}
	if out.Release == "" {
		return nil, errors.New("it has no vermagic in .modinfo, so that nothing says which kernel it is for")
	}
	return out, errors.Join(checkName(out.Name), checkRelease(out.Release))
}

// sources reads what klpc build has put into the module about its patches.
func sources(data []byte) (names, cves []string, err error) {
	file, err := target.ReadModule(data)
	if err != nil {
		return nil, nil, err
	}
	section := file.Object.Section(modsource.Section)
	if section == nil {
		return nil, nil, nil // another tool's
	}
	source, err := modsource.Decode(section.Data)
	if err != nil {
		return nil, nil, err
	}
	var texts []string
	for _, p := range source.Patches {
		names = append(names, p.Name)
		texts = append(texts, p.Name, string(p.Text))
	}
	return names, CVEs(texts...), nil
}

// cveID is a CVE identifier; its number has four digits or more.
var cveID = regexp.MustCompile(`(?i)\bCVE-[0-9]{4}-[0-9]{4,}\b`)

// CVEs returns the CVE identifiers that occur in texts, sorted.
func CVEs(texts ...string) []string {
	found := map[string]bool{}
	for _, t := range texts {
		for _, id := range cveID.FindAllString(t, -1) {
			found[strings.ToUpper(id)] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// CheckCVE refuses what is no CVE identifier.
func CheckCVE(id string) error {
	if cveID.FindString(id) != id || id == "" {
		return fmt.Errorf("%q is not a CVE identifier such as CVE-2024-12345", id)
	}
	return nil
}
