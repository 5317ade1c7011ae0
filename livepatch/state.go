package livepatch

import (
	"slices"
	"strings"

	"github.com/klpc/klpc/internal/modname"
)

// State is what the running kernel says of its livepatches. It is immutable.
type State struct {
	Release string `json:"release"` // what uname -r says
	// Supported tells whether the kernel has livepatching at all.
	Supported bool `json:"supported"`
	// Patches are the livepatches that the kernel knows, the oldest first if
	// Order says that this is known, otherwise by name. Those that are disabled,
	// of which no more than the module is left, come last, by name.
	Patches []Patch `json:"patches"`
	// Order is where the order of Patches comes from.
	Order OrderSource `json:"order_source"`
	// Unreadable says what could not be read, and why: all of it, sorted.
	Unreadable []string `json:"unreadable"`

	modules []module // all that are loaded, the newest first
	active  int      // livepatches that are not disabled
}

// OrderSource is where the order of livepatches comes from.
type OrderSource string

// The sources.
const (
	// FromStackOrder: the kernel says it, since Linux 6.14.
	FromStackOrder OrderSource = "stack_order"
	// FromModules: a livepatch is put on top of the others as its module is
	// loaded, and /proc/modules lists modules in that order.
	FromModules OrderSource = "modules"
	// OrderUnknown: neither can be read.
	OrderUnknown OrderSource = "unknown"
)

// Phase is what a livepatch does.
type Phase string

// The phases.
const (
	Enabled   Phase = "enabled"   // every task runs the new code
	Enabling  Phase = "enabling"  // in transition to it
	Disabling Phase = "disabling" // in transition back to the old code
	// Disabled livepatches patch nothing. The kernel has forgotten them, but
	// their module is still loaded. They cannot be enabled again.
	Disabled Phase = "disabled"
)

// Patch is one livepatch.
type Patch struct {
	Name  string `json:"name"` // of the module, as the kernel calls it
	Phase Phase  `json:"state"`
	// Enabled is the kernel's flag: in a transition, the state that it leads to.
	Enabled    bool `json:"enabled"`
	Transition bool `json:"transition"`
	// Replace tells whether it replaced all livepatches before it. Linux before
	// 6.11 does not say: nil.
	Replace *bool `json:"replace"`
	// StackOrder is its place among those that are not disabled, counted from 1;
	// where several patch a function, the highest wins. nil: unknown.
	StackOrder *int `json:"stack_order"`
	// Tasks tells how far the transition is; nil: there is none.
	Tasks   *Tasks   `json:"tasks"`
	Objects []Object `json:"objects"` // vmlinux first, then by name
	// Blocking are the tasks that the transition waits for, see Explain.
	Blocking []Task `json:"blocking,omitempty"`
	// Module is what /sys/module says of it.
	Module Loaded `json:"module"`
}

// Loaded is what the kernel tells of a loaded module.
type Loaded struct {
	BuildID    string `json:"build_id,omitempty"`   // GNU build ID, hexadecimal
	Srcversion string `json:"srcversion,omitempty"` // of the sources, if the kernel records it
	Refs       int    `json:"refs"`                 // users of the module; a livepatch that is not disabled is one
}

// Object is a part of the kernel that a livepatch patches: vmlinux or a module.
type Object struct {
	Name string `json:"name"`
	// Patched is false for a module that is not loaded: the livepatch waits for it.
	Patched   bool       `json:"patched"`
	Functions []Function `json:"functions"` // by name, then sympos
}

// Function is a function that a livepatch redirects.
type Function struct {
	Name string `json:"name"`
	// Sympos is its place among the functions of that name in its object, in the
	// order of addresses, counted from 1.
	Sympos int `json:"sympos"`
}

// Tasks counts threads in a transition. Idle tasks, one a CPU, are not counted:
// they are not in /proc.
type Tasks struct {
	Total    int `json:"total"`
	Switched int `json:"switched"`
	Unknown  int `json:"unknown"` // of Total: their state could not be read
}

// Left is how many have not switched, as far as can be read.
func (t Tasks) Left() int { return t.Total - t.Switched - t.Unknown }

// vmlinux is what the kernel itself is called among objects.
const vmlinux = "vmlinux"

// FullNames are the names of modules that a user may mean: as it is said, or
// without "livepatch_" in front, or that of the file; '-' and '_' are equal.
func FullNames(name string) []string {
	name = modname.Canonical(strings.TrimSuffix(name, ".ko"))
	return []string{name, namePrefix + name}
}

// Find returns the livepatch that a user means, see FullNames. nil: it is not
// loaded.
func (s *State) Find(name string) *Patch {
	for _, full := range FullNames(name) {
		if i := slices.IndexFunc(s.Patches, func(p Patch) bool { return p.Name == full }); i >= 0 {
			return &s.Patches[i]
		}
	}
	return nil
}

// namePrefix is what the names of klpc's modules begin with.
const namePrefix = "livepatch_"

// InTransition returns the livepatch that is in transition, of which there is
// one at most, or nil.
func (s *State) InTransition() *Patch {
	i := slices.IndexFunc(s.Patches, func(p Patch) bool { return p.Transition })
	if i < 0 {
		return nil
	}
	return &s.Patches[i]
}

// HasModule tells whether a module is loaded, livepatch or not.
func (s *State) HasModule(name string) bool { return s.module(name) != nil }

func (s *State) module(name string) *module {
	i := slices.IndexFunc(s.modules, func(m module) bool { return m.name == modname.Canonical(name) })
	if i < 0 {
		return nil
	}
	return &s.modules[i]
}

// Functions counts the functions of all objects.
func (p *Patch) Functions() int {
	n := 0
	for _, o := range p.Objects {
		n += len(o.Functions)
	}
	return n
}
