package store

import (
	"fmt"
	"path"
	"path/filepath"
	"reflect"
	"slices"
)

// Change is what a command does, or would do, to the store.
type Change struct {
	Name     string `json:"name"`
	Release  string `json:"release"`
	SHA256   string `json:"sha256"`
	File     string `json:"file"` // path
	Accepted bool   `json:"accepted"`
	Changed  bool   `json:"changed"`
	// Steps are what is done, in order; none: all is so already.
	Steps []string `json:"steps"`
	Notes []string `json:"notes"`

	actions []func() error
}

// InstallOptions are the choices of Install.
type InstallOptions struct {
	Accept bool
	// Sources and CVEs are added to those that the module names itself.
	Sources []string
	CVEs    []string
}

func (s *Store) newChange(release string, p *Patch) *Change {
	return &Change{
		Name: p.Name, Release: release, SHA256: p.SHA256, File: s.Path(release, p), Accepted: p.Accepted,
		Steps: []string{}, Notes: []string{},
	}
}

func (c *Change) add(action func() error, format string, args ...any) {
	c.Steps = append(c.Steps, fmt.Sprintf(format, args...))
	c.actions = append(c.actions, action)
	c.Changed = true
}

// Do carries the steps out. Each leaves a store that can be read, and doing all of
// it again is right whatever happened in between.
func (c *Change) Do() error {
	for _, a := range c.actions {
		if err := a(); err != nil {
			return err
		}
	}
	return nil
}

// Install plans to put a module into the store. The same module again changes
// nothing; another one of the same name takes its place in the order.
func (s *Store) Install(mod *Module, o InstallOptions) (*Change, error) {
	m, err := s.Read(mod.Release)
	if err != nil {
		return nil, err
	}
	old := named(m, mod.Name)
	p := s.installed(old, mod, o)
	c := s.newChange(mod.Release, &p)
	if _, err := s.Module(mod.Release, &p); err != nil {
		c.add(func() error { return s.writeModule(mod, p.File) }, "write %s (%d bytes)", c.File, p.Size)
	}
	if old == nil || !reflect.DeepEqual(*old, p) {
		c.add(func() error { return s.put(mod.Release, p) }, "record %s as %s in %s", p.Name, acceptance(p), s.manifestPath(mod.Release))
	}
	if old != nil && old.SHA256 != p.SHA256 {
		c.add(func() error { return nil }, "remove %s", s.Path(mod.Release, old))
		if old.Accepted && !p.Accepted {
			c.Notes = append(c.Notes, fmt.Sprintf("the %s that it replaces was accepted; this one is not until klpc accept %s", p.Name, p.Name))
		}
	}
	if c.Changed {
		c.actions = append(c.actions, func() error { return s.clean(mod.Release) })
	}
	return c, nil
}

func acceptance(p Patch) string {
	if p.Accepted {
		return "accepted"
	}
	return "not accepted"
}

// installed is what the manifest is to say of a module; old, which may be nil, is
// what it says of that name now.
func (s *Store) installed(old *Patch, mod *Module, o InstallOptions) Patch {
	if old == nil || old.SHA256 != mod.SHA256 {
		return Patch{
			Name: mod.Name, SHA256: mod.SHA256, File: fileName(mod.Name, mod.SHA256), Size: int64(len(mod.data)),
			Sources: sorted(mod.Sources, o.Sources), CVEs: sorted(mod.CVEs, o.CVEs), Replace: mod.Replace, Objects: mod.Objects,
			Accepted: o.Accept, Installed: s.now(),
		}
	}
	p := *old
	p.Sources, p.CVEs = sorted(p.Sources, o.Sources), sorted(p.CVEs, o.CVEs)
	if o.Accept {
		p.Accepted = true
	}
	if p.Held != nil && (o.Accept || p.Held.Kind == HeldDamaged) {
		p.Held = nil
	}
	return p
}

// Uninstall plans to take a livepatch out of the store. It stays loaded. One that
// is not there is no error: the name may be spelt wrong, which a note says.
func (s *Store) Uninstall(release, name string) (*Change, error) {
	m, err := s.Read(release)
	if err != nil {
		return nil, err
	}
	p := m.Find(name)
	if p == nil {
		c := &Change{Name: name, Release: release, Steps: []string{}, Notes: []string{s.notInstalled(m, name).Error()}}
		return c, nil
	}
	c := s.newChange(release, p)
	c.Accepted = false
	gone := p.Name
	c.add(func() error {
		return s.change(release, func(m *Manifest) error {
			m.Patches = slices.DeleteFunc(m.Patches, func(p Patch) bool { return p.Name == gone })
			return nil
		})
	}, "remove %s from %s", p.Name, s.manifestPath(release))
	c.add(func() error { return s.clean(release) }, "remove %s", c.File)
	return c, nil
}

// lookUp finds a livepatch in the manifest of a release.
func (s *Store) lookUp(release, name string) (*Patch, error) {
	m, err := s.Read(release)
	if err != nil {
		return nil, err
	}
	p := m.Find(name)
	if p == nil {
		return nil, s.notInstalled(m, name)
	}
	return p, nil
}

// Accept plans to have a livepatch restored at boot. It ends a hold.
func (s *Store) Accept(release, name string) (*Change, error) {
	old, err := s.lookUp(release, name)
	if err != nil {
		return nil, err
	}
	if _, err := s.Module(release, old); err != nil {
		return nil, fmt.Errorf("%w; install it again", err)
	}
	p := *old
	p.Accepted, p.Held = true, nil
	c := s.newChange(release, &p)
	if old.Held != nil {
		c.Notes = append(c.Notes, fmt.Sprintf("%s was held back: %s; it is restored at the next boot", p.Name, old.Held.Reason))
	}
	if !reflect.DeepEqual(*old, p) {
		c.add(func() error { return s.put(release, p) }, "record %s as accepted in %s", p.Name, s.manifestPath(release))
	}
	return c, nil
}

// Refuse plans the opposite of Accept: the livepatch stays installed, and is not
// restored at boot.
func (s *Store) Refuse(release, name string) (*Change, error) {
	old, err := s.lookUp(release, name)
	if err != nil {
		return nil, err
	}
	p := *old
	p.Accepted = false
	c := s.newChange(release, &p)
	if old.Accepted {
		c.add(func() error { return s.put(release, p) }, "record %s as not accepted in %s", p.Name, s.manifestPath(release))
	}
	return c, nil
}

// notInstalled says what there is instead, and where else the name is.
func (s *Store) notInstalled(m *Manifest, name string) error {
	err := fmt.Errorf("%s: %w for kernel %s", name, ErrNotInstalled, m.Release)
	releases, listErr := s.Releases()
	if listErr != nil {
		return err
	}
	for _, r := range releases {
		if other, readErr := s.Read(r); readErr == nil && other.Find(name) != nil {
			err = fmt.Errorf("%w; it is installed for %s: --release %s", err, r, r)
		}
	}
	return err
}

// named returns the patch of exactly that name, or nil.
func named(m *Manifest, name string) *Patch {
	i := slices.IndexFunc(m.Patches, func(p Patch) bool { return p.Name == name })
	if i < 0 {
		return nil
	}
	return &m.Patches[i]
}

// put writes a patch into a release's manifest.
func (s *Store) put(release string, p Patch) error {
	return s.change(release, func(m *Manifest) error {
		if old := named(m, p.Name); old != nil {
			*old = p
		} else {
			m.Patches = append(m.Patches, p)
		}
		return nil
	})
}

func (s *Store) writeModule(mod *Module, file string) error {
	if err := s.makeFolder(mod.Release); err != nil {
		return fmt.Errorf("write the store: %w", err)
	}
	if err := replaceFile(s.disk, path.Join(mod.Release, file), mod.data); err != nil {
		return fmt.Errorf("write the store: %w", err)
	}
	return nil
}

func (s *Store) manifestPath(release string) string {
	return filepath.Join(s.root, release, manifestName)
}

// sorted is what is in the lists, sorted, without doubles, never nil.
func sorted(lists ...[]string) []string {
	out := append([]string{}, slices.Concat(lists...)...)
	slices.Sort(out)
	return slices.Compact(out)
}
