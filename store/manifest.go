package store

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/klpc/klpc/internal/modname"
)

// manifestVersion is the version of the manifest's format.
const manifestVersion = 1

// Manifest is what is known of the livepatches for one kernel release.
type Manifest struct {
	Version int    `json:"version"`
	Release string `json:"release"` // as uname -r says
	// Patches are in the order in which they are restored: as they were loaded
	// by hand the last time, otherwise as they were installed.
	Patches []Patch `json:"patches"`
	// Boot is the last boot of this release in which klpc changed something or
	// restored livepatches, Previous the one before; nil: there was none.
	Boot     *Boot `json:"boot"`
	Previous *Boot `json:"previous_boot"`
	// UncleanBoots counts the boots in a row that ended without a clean shutdown
	// before they had settled, with livepatches restored.
	UncleanBoots int `json:"unclean_boots"`
}

// Patch is an installed livepatch.
type Patch struct {
	Name   string `json:"name"` // of the module, as the kernel calls it
	SHA256 string `json:"sha256"`
	File   string `json:"file"` // in the release's folder
	Size   int64  `json:"size"` // bytes
	// Sources are the names of the source patches, CVEs what they fix, sorted;
	// empty: unknown.
	Sources []string `json:"source_patches"`
	CVEs    []string `json:"cves"`
	Replace *bool    `json:"replace"` // nil: unknown
	Objects []Object `json:"objects"`

	Installed time.Time  `json:"installed"`
	Accepted  bool       `json:"accepted"`
	Loaded    *time.Time `json:"loaded"` // when last; nil: never
	// Held says why the livepatch is not restored though it may be accepted.
	Held *Hold `json:"held"`
	// Failed says why the kernel refused it the last time.
	Failed *Failure `json:"failed"`
}

// Object is a part of the kernel that a livepatch patches: vmlinux or a module.
type Object struct {
	Name      string     `json:"name"`
	Functions []Function `json:"functions"`
}

// Function is a function that a livepatch replaces.
type Function struct {
	Name   string `json:"name"`
	Sympos uint64 `json:"sympos"` // 1-based; 0: the name is unique
}

// Hold is the reason why a livepatch is held back, until it is accepted (again)
// or installed anew.
type Hold struct {
	Kind   HoldKind  `json:"kind"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// HoldKind is a class of reasons.
type HoldKind string

// The kinds.
const (
	// HeldLoading: the machine restarted, or the loading process died, while it
	// was being loaded.
	HeldLoading HoldKind = "loading"
	// HeldUnclean: it was loaded, and not accepted, before an unclean restart.
	HeldUnclean HoldKind = "unclean-restart"
	// HeldLoop: one unclean restart after the other, each soon after it had been
	// restored.
	HeldLoop HoldKind = "crash-loop"
	// HeldDamaged: its file is not what was installed.
	HeldDamaged HoldKind = "damaged"
)

// Failure is a load that the kernel, or klpc's checks, refused.
type Failure struct {
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// Boot is what klpc did in one boot of the machine.
type Boot struct {
	ID    string    `json:"id"` // /proc/sys/kernel/random/boot_id
	Began time.Time `json:"began"`
	// Loading is what is being loaded; it stays if the machine dies over it.
	Loading *Load `json:"loading"`
	// Loaded are the livepatches that were loaded and not unloaded since, in order.
	Loaded []Load `json:"loaded"`
	// Settled says that the machine ran long enough after livepatches were restored.
	Settled bool `json:"settled"`
	// Clean says that the machine was shut down in good order.
	Clean bool `json:"clean"`
}

// Load is one load of a livepatch, installed or not.
type Load struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
	// Restored tells a load at boot from one by hand.
	Restored bool `json:"restored"`
}

// Find returns the livepatch that a user means: the module's name, or that of its
// file, with or without "livepatch_"; '-' and '_' are equal.
func (m *Manifest) Find(name string) *Patch {
	if m == nil {
		return nil
	}
	name = modname.Canonical(strings.TrimSuffix(path.Base(name), ".ko"))
	for _, n := range []string{name, "livepatch_" + name} {
		if i := slices.IndexFunc(m.Patches, func(p Patch) bool { return p.Name == n }); i >= 0 {
			return &m.Patches[i]
		}
	}
	return nil
}

// installed returns the livepatch that a load was of; nil: it is not installed,
// or another one of that name is.
func (m *Manifest) installed(l Load) *Patch {
	for i, p := range m.Patches {
		if p.Name == l.Name && p.SHA256 == l.SHA256 {
			return &m.Patches[i]
		}
	}
	return nil
}

// Restorable tells whether a livepatch is to be loaded at boot.
func (p *Patch) Restorable() bool { return p.Accepted && p.Held == nil }

// fileName is the name of a module's file.
func fileName(name, sum string) string { return name + "-" + sum[:16] + moduleSuffix }

func newManifest(release string) *Manifest {
	return &Manifest{Version: manifestVersion, Release: release, Patches: []Patch{}}
}

// encode is the manifest's text: one way to write each manifest.
func (m *Manifest) encode() ([]byte, error) {
	data, err := json.MarshalIndent(m, "", "  ")
	return append(data, '\n'), err
}

// decode reads a manifest and checks all that later code relies on.
func decode(data []byte, release string) (*Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, err
	}
	if m.Version != manifestVersion {
		return nil, fmt.Errorf("version %d of the format is unknown to this klpc, which knows %d", m.Version, manifestVersion)
	}
	var errs []error
	if m.Release != release {
		errs = append(errs, fmt.Errorf("it is for kernel %q", m.Release))
	}
	seen := map[string]bool{}
	for _, p := range m.Patches {
		errs = append(errs, p.check())
		if seen[p.Name] {
			errs = append(errs, fmt.Errorf("patch %q is there twice", p.Name))
		}
		seen[p.Name] = true
	}
	return &m, errors.Join(errs...)
}

func (p *Patch) check() error {
	if err := checkName(p.Name); err != nil {
		return err
	}
	if sum, err := hex.DecodeString(p.SHA256); err != nil || len(sum) != sumSize {
		return fmt.Errorf("patch %s: %q is not a SHA-256", p.Name, p.SHA256)
	}
	if p.File != fileName(p.Name, p.SHA256) {
		return fmt.Errorf("patch %s: its file cannot be %q", p.Name, p.File)
	}
	return nil
}

// nameLimit is what the kernel allows, MODULE_NAME_LEN - 1 (include/linux/moduleparam.h).
const nameLimit = 55

// checkName checks a module's name, which becomes a part of a file name.
func checkName(name string) error {
	if name == "" || len(name) > nameLimit {
		return fmt.Errorf("%q is not a module's name: 1 to %d characters", name, nameLimit)
	}
	for _, c := range []byte(name) {
		if c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return fmt.Errorf("%q is not a module's name: only letters, digits and _", name)
		}
	}
	return nil
}

// checkRelease checks a kernel's release, which becomes the name of a folder.
func checkRelease(release string) error {
	if release == "" || strings.HasPrefix(release, ".") || strings.ContainsAny(release, "/\\ \x00\n") {
		return fmt.Errorf("%q is not a kernel release", release)
	}
	return nil
}
