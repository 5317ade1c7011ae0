package main

// The patch store as the commands on the running kernel see it.

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

// findInstalled returns the file of an installed livepatch.
func findInstalled(release, name string) (string, error) {
	s, _, err := openStore("")
	if err != nil {
		return "", err
	}
	m, err := s.Read(release)
	if err != nil {
		return "", err
	}
	p := m.Find(name)
	if p == nil {
		return "", fmt.Errorf("%s: there is no such file, and it is %w for kernel %s", name, store.ErrNotInstalled, release)
	}
	if _, err := s.Module(release, p); err != nil {
		return "", err
	}
	return s.Path(release, p), nil
}

// installed is a livepatch in the store.
type installed struct {
	Release string `json:"release"`
	State   string `json:"state"`
	store.Patch
}

// The states of an installed livepatch.
const (
	stateAccepted    = "accepted"
	stateNotAccepted = "not accepted"
	stateHeld        = "held back"
)

func installedState(p store.Patch) string {
	switch {
	case p.Held != nil:
		return stateHeld
	case p.Accepted:
		return stateAccepted
	}
	return stateNotAccepted
}

// listInstalled returns what is in the store, by release, then in the order in
// which it is restored. What can be read is returned even if there is an error.
func listInstalled() ([]installed, error) {
	all := []installed{}
	s, c, err := openStore("")
	if err != nil {
		return all, err
	}
	releases, err := s.Releases()
	errs := []error{err}
	on, err := machine(c)
	errs = append(errs, err)
	for _, r := range releases {
		m, err := s.Read(r)
		if r == on.Release {
			m, err = s.View(on)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, p := range m.Patches {
			all = append(all, installed{r, installedState(p), p})
		}
	}
	return all, errors.Join(errs...)
}

// installedText is the part of klpc status and klpc list on the store.
func installedText(all []installed) string {
	if len(all) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\ninstalled\n")
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	for _, i := range all {
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", i.Name, i.Release, i.State, strings.Join(i.CVEs, " "))
	}
	w.Flush()
	text := ""
	for line := range strings.Lines(b.String()) {
		text += strings.TrimRight(line, " \n") + "\n"
	}
	for _, i := range all {
		if i.Held != nil {
			text += fmt.Sprintf("  %s is held back: %s\n    klpc accept %s has it restored again\n", i.Name, indent(i.Held.Reason), i.Name)
		}
		if i.Failed != nil {
			text += fmt.Sprintf("  %s could not be loaded (%s): %s\n", i.Name, i.Failed.At.Format("2006-01-02 15:04"), indent(i.Failed.Reason))
		}
	}
	if skipped() {
		text += "  nothing was restored in this boot: " + skipParameter + " is on the kernel command line\n"
	}
	return text
}

// skipped tells whether the kernel command line says not to restore anything.
func skipped() bool {
	cmdline, err := os.ReadFile("/proc/cmdline")
	return err == nil && hasField(string(cmdline), skipParameter)
}

// loadRecorded loads a livepatch and records, in the store, that it is about to
// be loaded and how that ended, so that a crash is not repeated at boot. If
// that cannot be recorded, it is loaded all the same: somebody is there to see.
func loadRecorded(ctx context.Context, m *livepatch.Module, o livepatch.Options) (*livepatch.Result, error) {
	load := func() (*livepatch.Result, error) { return livepatch.Load(ctx, livepatch.Linux{}, m, o) }
	if o.DryRun {
		return load()
	}
	s, c, err := openStore("")
	if err != nil {
		return nil, err
	}
	on, err := machine(c)
	if err != nil {
		return nil, err
	}
	for _, name := range on.Active {
		if name == m.Name {
			return load() // it leaves it alone
		}
	}
	l := store.Load{Name: m.Name, SHA256: store.Sum(m.Data)}
	if err := s.Loading(on, l); err != nil {
		o.Events.Note(fmt.Sprintf("the patch store cannot record that %s is being loaded: %v", m.Name, err))
		return load()
	}
	if man, err := s.Read(on.Release); err == nil {
		if i := man.Find(m.Name); i != nil && i.Held != nil {
			o.Events.Note(fmt.Sprintf("%s is held back at boot: %s", m.Name, i.Held.Reason))
		}
	}
	r, err := load()
	if recErr := s.Finish(ctx, &on, l, kernelLoader{}.Active, err); recErr != nil {
		o.Events.Note(fmt.Sprintf("the patch store cannot record how loading %s ended: %v", m.Name, recErr))
	}
	return r, err
}

// recordActive records which of the livepatches that were loaded are still there.
func recordActive(note func(string)) {
	s, c, err := openStore("")
	if err == nil {
		var on store.Machine
		if on, err = machine(c); err == nil {
			err = s.Unloaded(on)
		}
	}
	if err != nil {
		note(fmt.Sprintf("the patch store cannot record what is loaded: %v", err))
	}
}
