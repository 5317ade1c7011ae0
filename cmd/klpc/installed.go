package main

// The patch store as the commands on the running kernel see it: it knows names,
// and it is told what is loaded and unloaded, for the next boot.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/klpc/klpc/livepatch"
	"github.com/klpc/klpc/store"
)

// findInstalled returns the file of a livepatch that is installed for the running
// kernel, if it is what was installed.
func findInstalled(s *store.Store, name string) (string, error) {
	release, err := runningRelease()
	if err != nil {
		return "", err
	}
	m, err := s.Read(release)
	if err != nil {
		return "", err
	}
	p := m.Find(name)
	if p == nil {
		return "", fmt.Errorf("%s: %w for kernel %s (in %s), and there is no such file", name, store.ErrNotInstalled, release, s.Root())
	}
	if _, err := s.Module(release, p); err != nil {
		return "", err
	}
	return s.Path(release, p), nil
}

// recorder tells the store what is loaded. That a load cannot be recorded is no
// reason not to do it by hand.
type recorder struct {
	store  *store.Store
	config config
	note   func(string)
}

func (r recorder) record(what string, f func(on store.Machine) error) {
	on, err := machine(r.config)
	if err == nil {
		err = f(on)
	}
	if err != nil {
		r.note(fmt.Sprintf("%s is not recorded in the patch store: %v", what, err))
	}
}

// load loads a module and records it, before and after.
func (r recorder) load(ctx context.Context, m *livepatch.Module, o livepatch.Options) (*livepatch.Result, error) {
	l := store.Load{Name: m.Name, SHA256: store.Sum(m.Data)}
	begun := false
	o.BeforeInsert = func() {
		begun = true
		r.record("the load", func(on store.Machine) error {
			man, err := r.store.View(on)
			if err != nil {
				return err
			}
			if p := man.Find(l.Name); p != nil && p.Held != nil {
				r.note(fmt.Sprintf("%s is held back at boot: %s", p.Name, p.Held.Reason))
			}
			return r.store.Loading(on, l)
		})
	}
	result, err := livepatch.Load(ctx, livepatch.Linux{}, m, o)
	if !begun {
		return result, err
	}
	r.record("the load", func(on store.Machine) error {
		switch {
		case result.Active():
			return r.store.Loaded(on, l)
		case ctx.Err() != nil:
			return r.store.NotLoaded(on, l, "")
		}
		return r.store.NotLoaded(on, l, result.Error)
	})
	return result, err
}

// unloaded records what is left after a command that has taken livepatches away.
func (r recorder) unloaded() {
	r.record("the unload", func(on store.Machine) error {
		m, err := r.store.Read(on.Release)
		if err != nil || m.Boot == nil {
			return err // nothing is known of this boot
		}
		return r.store.Unloaded(on)
	})
}

// installed is a livepatch in the store.
type installed struct {
	Release string `json:"release"`
	// State is what happens to it at boot.
	State string `json:"state"`
	store.Patch
}

// The states of an installed livepatch.
const (
	stateAccepted    = "accepted"
	stateNotAccepted = "not accepted"
	stateHeld        = "held back"
)

func newInstalled(release string, p store.Patch) installed {
	state := stateNotAccepted
	switch {
	case p.Held != nil:
		state = stateHeld
	case p.Accepted:
		state = stateAccepted
	}
	return installed{release, state, p}
}

// readStore reads what is in the store, by release, then in the order of
// restoring; also if there is an error, as far as it can be read.
func (s *status) readStore(patches *store.Store, c config) error {
	releases, err := patches.Releases()
	errs := []error{err}
	on, err := machine(c)
	errs = append(errs, err)
	for _, release := range releases {
		m, err := patches.Read(release)
		if err == nil && release == on.Release {
			if m, err = patches.View(on); err == nil {
				s.PreviousBoot = m.Previous
			}
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, p := range m.Patches {
			s.Installed = append(s.Installed, newInstalled(release, p))
		}
	}
	return errors.Join(errs...)
}

// previousText tells of a boot before that may have ended badly.
func (s *status) previousText() string {
	b := s.PreviousBoot
	if b == nil || b.Clean || len(b.Loaded) == 0 && b.Loading == nil {
		return ""
	}
	var names []string
	for _, l := range b.Loaded {
		names = append(names, l.Name)
	}
	if b.Loading != nil {
		names = append(names, b.Loading.Name+" (was being loaded)")
	}
	return "the boot before ended without a clean shutdown; loaded were " + strings.Join(names, ", ") + "\n"
}

// text says, in a word or a sentence, what becomes of it at boot.
func (i installed) text() string {
	parts := []string{i.State}
	if i.Held != nil {
		first, _, _ := strings.Cut(i.Held.Reason, "\n")
		parts = []string{i.State + ": " + first}
	}
	if i.Failed != nil {
		first, _, _ := strings.Cut(i.Failed.Reason, "\n")
		parts = append(parts, "failed: "+first)
	}
	return strings.Join(parts, ", ")
}

// installedText lists what is installed, for this kernel and for others.
func (s *status) installedText() string {
	var b strings.Builder
	for _, group := range []struct {
		title string
		here  bool
	}{{"installed for this kernel", true}, {"installed for other kernels", false}} {
		w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
		n := 0
		for _, i := range s.Installed {
			if (i.Release == s.Release) != group.here {
				continue
			}
			if n++; n == 1 {
				fmt.Fprintf(&b, "\n%s\n", group.title)
			}
			columns := []string{i.Name, i.text(), strings.Join(i.CVEs, " ")}
			if !group.here {
				columns = append([]string{i.Release}, columns...)
			}
			fmt.Fprintf(w, "  %s\n", strings.TrimRight(strings.Join(columns, "\t"), "\t"))
		}
		w.Flush()
		if group.here && skipped() {
			fmt.Fprintf(&b, "nothing was restored in this boot: %s is on the kernel command line\n", skipParameter)
		}
	}
	b.WriteString(s.previousText())
	return b.String()
}

// skipped tells whether the kernel command line says not to restore anything.
func skipped() bool {
	cmdline, err := os.ReadFile("/proc/cmdline")
	return err == nil && hasField(string(cmdline), skipParameter)
}
