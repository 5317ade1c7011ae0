package store

// The state machine of a boot. A boot begins when the first klpc command that
// records something sees a boot ID that the manifest does not know; klpc restore
// is meant to be that command. Then the boot before is judged:
//
//	its record says              what follows
//	Loading is set               that livepatch is held back (HeldLoading): the machine
//	                             restarted over it, or its loader died
//	not Clean                    what was loaded and is not accepted is held back
//	                             (HeldUnclean)
//	not Clean, not Settled, and  UncleanBoots counts up; at the limit everything that
//	something was restored       was restored is held back (HeldLoop)
//	Clean or Settled             UncleanBoots is 0 again
//
// A power cut, a hard reset, a panic and kexec -e look the same: not Clean. A
// shutdown, reboot or systemctl kexec is Clean. Each line is written, with the
// record of the new boot, in one change of the manifest, before anything is loaded.

import (
	"fmt"
	"slices"
	"time"
)

// DefaultUncleanBoots is how many boots in a row may end uncleanly, soon after
// livepatches were restored, until they are held back.
const DefaultUncleanBoots = 3

// Machine is what the store must know of the running machine.
type Machine struct {
	Release string
	BootID  string
	// Active are the names of the livepatches that the kernel knows now.
	Active []string
	// UncleanBoots is the limit of unclean boots; 0: none.
	UncleanBoots int
}

// begin records that this boot has begun, and judges the one before.
func (m *Manifest) begin(on Machine, now time.Time) {
	if m.Boot != nil && m.Boot.ID == on.BootID {
		m.Boot.Clean = false // the kernel outlived it: a soft reboot, or a call by hand
		m.died(on.Active, now)
		return
	}
	prev := m.Boot
	m.Previous, m.Boot = prev, &Boot{ID: on.BootID, Began: now, Loaded: []Load{}}
	if prev == nil {
		return
	}
	if l := prev.Loading; l != nil {
		how := "was being loaded"
		if l.Restored {
			how = "was being restored at boot"
		}
		m.hold(*l, HeldLoading, "the machine restarted while it "+how, now)
	}
	if prev.Clean {
		m.UncleanBoots = 0
		return
	}
	for _, l := range prev.Loaded {
		if p := m.installed(l); p != nil && !p.Accepted {
			m.hold(l, HeldUnclean, "it was loaded, and not accepted, when the machine restarted without a clean shutdown", now)
		}
	}
	m.countUnclean(prev, on.UncleanBoots, now)
}

// countUnclean ends a loop of crashes that begins with restored livepatches.
func (m *Manifest) countUnclean(prev *Boot, limit int, now time.Time) {
	if prev.Settled {
		m.UncleanBoots = 0
		return
	}
	var restored []Load
	for _, l := range prev.Loaded {
		if l.Restored {
			restored = append(restored, l)
		}
	}
	if len(restored) == 0 {
		return
	}
	m.UncleanBoots++
	if limit == 0 || m.UncleanBoots < limit {
		return
	}
	for _, l := range restored {
		m.hold(l, HeldLoop, fmt.Sprintf("%d times in a row the machine restarted without a clean shutdown soon after it had been restored", m.UncleanBoots), now)
	}
	m.UncleanBoots = 0
}

// empty tells whether nothing was ever installed or loaded: there is no need for
// a record then.
func (m *Manifest) empty() bool { return m.Boot == nil && len(m.Patches) == 0 }

// died settles a load that this very boot did not finish, because its process
// died: killed, or by a kernel oops.
func (m *Manifest) died(active []string, now time.Time) {
	l := m.Boot.Loading
	if l == nil {
		return
	}
	m.Boot.Loading = nil
	if slices.Contains(active, l.Name) {
		m.loaded(*l, active, now)
		return
	}
	m.hold(*l, HeldLoading, "the process that loaded it died before it was loaded", now)
}

// hold holds a livepatch back. The first reason stays: the later ones follow from it.
func (m *Manifest) hold(l Load, kind HoldKind, reason string, now time.Time) {
	if p := m.installed(l); p != nil && p.Held == nil {
		p.Held = &Hold{Kind: kind, Reason: reason, Since: now}
	}
}

// loaded records a finished load. Of what was loaded before, only that stays which
// is still active: the rest was replaced or unloaded.
func (m *Manifest) loaded(l Load, active []string, now time.Time) {
	m.Boot.Loading = nil
	m.Boot.Loaded = slices.DeleteFunc(m.Boot.Loaded, func(o Load) bool { return o.Name == l.Name || !slices.Contains(active, o.Name) })
	m.Boot.Loaded = append(m.Boot.Loaded, l)
	p := m.installed(l)
	if p == nil {
		return
	}
	p.Loaded, p.Failed = &now, nil
	if !l.Restored {
		m.moveLast(p.Name)
	}
}

// moveLast puts a livepatch that was loaded by hand on top of the others, where the
// kernel has it, too.
func (m *Manifest) moveLast(name string) {
	i := slices.IndexFunc(m.Patches, func(p Patch) bool { return p.Name == name })
	p := m.Patches[i]
	m.Patches = append(slices.Delete(m.Patches, i, i+1), p)
}

// Begin records that this boot has begun, if that is not known yet. Judged are
// the livepatches that are held back from now on.
func (s *Store) Begin(on Machine) (judged []Patch, err error) {
	err = s.change(on.Release, func(m *Manifest) error {
		if m.empty() {
			return nil
		}
		held := map[string]bool{}
		for _, p := range m.Patches {
			held[p.Name] = p.Held != nil
		}
		m.begin(on, s.now())
		for _, p := range m.Patches {
			if p.Held != nil && !held[p.Name] {
				judged = append(judged, p)
			}
		}
		return nil
	})
	return judged, err
}

// View is the manifest with the judgement on the boot before, whether or not it
// has been recorded yet.
func (s *Store) View(on Machine) (*Manifest, error) {
	m, err := s.Read(on.Release)
	if err != nil {
		return nil, err
	}
	if !m.empty() && (m.Boot == nil || m.Boot.ID != on.BootID) {
		m.begin(on, s.now())
	}
	return m, nil
}

// Loading records, durably, that a livepatch is about to be loaded. If the
// machine dies before Loaded or NotLoaded, the next boot knows what it was.
func (s *Store) Loading(on Machine, l Load) error {
	return s.change(on.Release, func(m *Manifest) error {
		m.begin(on, s.now())
		m.Boot.Loading, m.Boot.Clean = &l, false
		return nil
	})
}

// Loaded records that a livepatch is loaded and its transition complete;
// on.Active are those that are loaded now.
func (s *Store) Loaded(on Machine, l Load) error {
	return s.change(on.Release, func(m *Manifest) error {
		if m.Boot == nil || m.Boot.ID != on.BootID {
			m.begin(on, s.now())
		}
		m.loaded(l, on.Active, s.now())
		return nil
	})
}

// NotLoaded records that a livepatch was refused, and why; an empty reason says
// that nobody is to blame.
func (s *Store) NotLoaded(on Machine, l Load, reason string) error {
	return s.change(on.Release, func(m *Manifest) error {
		if m.Boot != nil && m.Boot.ID == on.BootID {
			m.Boot.Loading = nil
		}
		if p := m.installed(l); p != nil && reason != "" {
			p.Failed = &Failure{Reason: reason, At: s.now()}
		}
		return nil
	})
}

// Unloaded records that livepatches were unloaded; on.Active are those that are left.
func (s *Store) Unloaded(on Machine) error {
	return s.change(on.Release, func(m *Manifest) error {
		if m.Boot != nil && m.Boot.ID == on.BootID {
			m.Boot.Loaded = slices.DeleteFunc(m.Boot.Loaded, func(l Load) bool { return !slices.Contains(on.Active, l.Name) })
		}
		return nil
	})
}

// MarkClean records that the machine is being shut down in good order.
func (s *Store) MarkClean(on Machine) error {
	return s.change(on.Release, func(m *Manifest) error {
		if m.empty() {
			return nil
		}
		m.begin(on, s.now())
		m.Boot.Clean = true
		return nil
	})
}

// MarkSettled records that the machine has run long enough since livepatches were
// restored that they need not be blamed for its end.
func (s *Store) MarkSettled(on Machine) error {
	return s.change(on.Release, func(m *Manifest) error {
		if m.empty() {
			return nil
		}
		m.begin(on, s.now())
		m.Boot.Settled = true
		return nil
	})
}
