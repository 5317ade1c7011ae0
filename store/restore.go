package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Loader loads livepatches into the running kernel.
type Loader interface {
	// Active returns the names of the livepatches that the kernel knows.
	Active() ([]string, error)
	// Load loads a module and returns when its transition is complete. If it
	// fails, the module is not loaded.
	Load(ctx context.Context, path string) error
}

// Action is what Restore did with a livepatch.
type Action string

// The actions.
const (
	Restored    Action = "restored"
	WouldBe     Action = "to be restored" // of a dry run
	WasLoaded   Action = "already loaded"
	NotAccepted Action = "not accepted"
	HeldBack    Action = "held back"
	FailedLoad  Action = "failed"
)

// Restoration is the result of Restore.
type Restoration struct {
	Release string         `json:"release"`
	Patches []RestoredStep `json:"patches"`
}

// RestoredStep is what became of one livepatch.
type RestoredStep struct {
	Name    string  `json:"name"`
	Action  Action  `json:"action"`
	Reason  string  `json:"reason"`
	Seconds float64 `json:"seconds"`
}

// Failed tells whether something that should have been restored was not.
func (r *Restoration) Failed() bool {
	for _, p := range r.Patches {
		if p.Action == FailedLoad {
			return true
		}
	}
	return false
}

// Restore loads the accepted livepatches of the running kernel, in order. Before
// each it records what it is about to do, so that a crash is not repeated at the
// next boot. One that fails does not keep the next ones from being loaded.
// started, which may be nil, is called before each load.
func (s *Store) Restore(ctx context.Context, on Machine, l Loader, started func(name string)) (*Restoration, error) {
	var err error
	if on.Active, err = l.Active(); err != nil {
		return nil, err
	}
	if _, err := s.Begin(on); err != nil {
		return nil, fmt.Errorf("nothing is restored, because the attempt cannot be recorded: %w", err)
	}
	m, err := s.Read(on.Release)
	if err != nil {
		return nil, err
	}
	r := &Restoration{Release: on.Release, Patches: []RestoredStep{}}
	for i := range m.Patches {
		p := &m.Patches[i]
		step := planned(p, on.Active)
		if step.Action == WouldBe && ctx.Err() == nil {
			if started != nil {
				started(p.Name)
			}
			begin := time.Now()
			step.Action, step.Reason = Restored, ""
			if err := s.restoreOne(ctx, &on, l, p); err != nil {
				step.Action, step.Reason = FailedLoad, err.Error()
			}
			step.Seconds = time.Since(begin).Seconds()
		}
		r.Patches = append(r.Patches, step)
	}
	return r, ctx.Err()
}

// PlanRestore says what Restore would do now, without doing it.
func (s *Store) PlanRestore(on Machine) (*Restoration, error) {
	m, err := s.View(on)
	if err != nil {
		return nil, err
	}
	r := &Restoration{Release: on.Release, Patches: []RestoredStep{}}
	for i := range m.Patches {
		r.Patches = append(r.Patches, planned(&m.Patches[i], on.Active))
	}
	return r, nil
}

// planned is what is to be done with a livepatch at boot.
func planned(p *Patch, active []string) RestoredStep {
	step := RestoredStep{Name: p.Name, Action: WouldBe}
	switch {
	case slices.Contains(active, p.Name):
		step.Action = WasLoaded
	case p.Held != nil:
		step.Action, step.Reason = HeldBack, p.Held.Reason
	case !p.Accepted:
		step.Action = NotAccepted
	}
	return step
}

func (s *Store) restoreOne(ctx context.Context, on *Machine, l Loader, p *Patch) error {
	load := Load{Name: p.Name, SHA256: p.SHA256, Restored: true}
	if _, err := s.Module(on.Release, p); err != nil {
		return errors.Join(err, s.holdDamaged(on.Release, load, err))
	}
	if err := s.Loading(*on, load); err != nil {
		return fmt.Errorf("not loaded, because the attempt cannot be recorded: %w", err)
	}
	err := l.Load(ctx, s.Path(on.Release, p))
	return errors.Join(err, s.finish(ctx, on, load, l.Active, err))
}

// finish records how the load ended that Loading has announced. If it was
// interrupted, nobody is to blame.
func (s *Store) finish(ctx context.Context, on *Machine, l Load, active func() ([]string, error), failure error) error {
	if failure != nil {
		reason := failure.Error()
		if ctx.Err() != nil {
			reason = ""
		}
		return s.NotLoaded(*on, l, reason)
	}
	now, err := active()
	if err != nil {
		return err
	}
	on.Active = now
	return s.Loaded(*on, l)
}

func (s *Store) holdDamaged(release string, l Load, why error) error {
	return s.change(release, func(m *Manifest) error {
		m.hold(l, HeldDamaged, why.Error(), s.now())
		return nil
	})
}
