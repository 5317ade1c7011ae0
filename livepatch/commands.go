package livepatch

// Everything but loading: taking livepatches away, and turning and forcing
// transitions. Each command may be given again: what is so already is left alone.

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// ErrNotLoaded is a livepatch that is not loaded.
var ErrNotLoaded = errors.New("no such livepatch is loaded")

// Unload disables a livepatch and removes its module. One that is not loaded is
// Unchanged.
func Unload(ctx context.Context, sys System, name string, o Options) (*Result, error) {
	return disable(ctx, sys, name, o, true)
}

// Disable disables a livepatch; its module stays. The kernel cannot enable it
// again: it has to be unloaded and loaded.
func Disable(ctx context.Context, sys System, name string, o Options) (*Result, error) {
	return disable(ctx, sys, name, o, false)
}

func disable(ctx context.Context, sys System, name string, o Options, unload bool) (*Result, error) {
	s := newSession(sys, name, o)
	p, err := s.find(unload)
	if err != nil {
		return s.finish(Failed, err)
	}
	if p == nil {
		return s.finish(Unchanged, nil)
	}
	if p.Phase == Disabled && !unload {
		return s.finish(Unchanged, nil)
	}
	if p.Phase != Disabled {
		if r, err := s.toDisabled(ctx, p); r != nil {
			return r, err
		}
	}
	if unload {
		if err := s.remove(ctx, p.Name, ""); err != nil {
			return s.finish(Failed, err)
		}
	}
	return s.finish(Done, nil)
}

// find returns the livepatch; nil, if missing permits that: it is not loaded.
func (s *session) find(missing bool) (*Patch, error) {
	state, err := Read(s.root)
	if err != nil {
		return nil, err
	}
	p := state.Find(s.result.Name)
	switch {
	case p != nil:
		s.result.Name = p.Name
		return p, nil
	case state.HasModule(s.result.Name):
		return nil, fmt.Errorf("%s is a module, but no livepatch: %w", s.result.Name, ErrNotLoaded)
	case missing:
		return nil, nil
	}
	return nil, notLoaded(state, s.result.Name)
}

// notLoaded says what is loaded instead.
func notLoaded(state *State, name string) error {
	var names []string
	for _, p := range state.Patches {
		names = append(names, p.Name)
	}
	if len(names) == 0 {
		return fmt.Errorf("%s: %w; none is", name, ErrNotLoaded)
	}
	return fmt.Errorf("%s: %w, only: %s", name, ErrNotLoaded, list(names))
}

// toDisabled leads a livepatch to where it is disabled. A result is returned if
// that did not work, or is not done yet.
func (s *session) toDisabled(ctx context.Context, p *Patch) (*Result, error) {
	var err error
	started := p.Phase == Enabled
	switch p.Phase {
	case Enabled:
		err = s.step(ActionDisable, p.Name, func() error { return s.set(ctx, p.Name, false) })
	case Enabling:
		err = s.step(ActionReverse, p.Name+", which is being enabled", func() error { return s.set(ctx, p.Name, false) })
	}
	if err != nil {
		return s.finish(Failed, err)
	}
	limit := s.limit()
	if limit == 0 {
		return s.finish(Done, nil) // the state says that it is not complete
	}
	why, err := s.wait(ctx, p.Name, false, limit, s.opts.ForceAfter, s.policy(started, "reverse it, so that it stays enabled"))
	switch {
	case err != nil:
		return s.finish(Failed, err)
	case why == "":
		return nil, nil
	case s.opts.Leave || !started:
		return s.finish(Failed, s.goesOn(p.Name, why))
	}
	if err := s.takeBack(ctx, p.Name, true); err != nil {
		return s.finish(Failed, fmt.Errorf("%s: %s; taking it back: %w", p.Name, why, err))
	}
	return s.finish(TakenBack, fmt.Errorf("%s: %s; it was reversed: %[1]s is enabled, as before", p.Name, why))
}

// Enable enables a livepatch that is being disabled. The kernel has no way to
// enable one that is disabled.
func Enable(ctx context.Context, sys System, name string, o Options) (*Result, error) {
	s := newSession(sys, name, o)
	p, err := s.find(false)
	if err != nil {
		return s.finish(Failed, err)
	}
	switch p.Phase {
	case Enabled:
		return s.finish(Unchanged, nil)
	case Enabling:
		return s.toEnd(ctx, p.Name, true)
	case Disabled:
		return s.finish(Failed, fmt.Errorf("%s is disabled, and the kernel does not enable a disabled livepatch again (it says EINVAL)\n"+
			"what to do: load it again, klpc load FILE.ko (which removes the module that is left over first)", p.Name))
	}
	return s.reverse(ctx, p)
}

// Reverse turns a transition round, and follows it.
func Reverse(ctx context.Context, sys System, name string, o Options) (*Result, error) {
	s := newSession(sys, name, o)
	p, err := s.find(false)
	if err != nil {
		return s.finish(Failed, err)
	}
	if !p.Transition {
		return s.finish(Failed, fmt.Errorf("%s is not in transition (%s): there is nothing to reverse", p.Name, p.Phase))
	}
	return s.reverse(ctx, p)
}

// reverse turns a livepatch's transition round, and follows it.
func (s *session) reverse(ctx context.Context, p *Patch) (*Result, error) {
	back := !p.Enabled
	err := s.step(ActionReverse, fmt.Sprintf("%s, which is %s", p.Name, p.Phase), func() error { return s.set(ctx, p.Name, back) })
	if err != nil {
		return s.finish(Failed, err)
	}
	return s.toEnd(ctx, p.Name, back)
}

// Force makes the tasks that have not switched in a transition do so, without
// regard to where they are.
func Force(ctx context.Context, sys System, name string, o Options) (*Result, error) {
	s := newSession(sys, name, o)
	p, err := s.find(false)
	if err != nil {
		return s.finish(Failed, err)
	}
	if !p.Transition {
		s.note("%s is not in transition (%s): nothing to force", p.Name, p.Phase)
		return s.finish(Unchanged, nil)
	}
	if err := s.force(p.Name); err != nil {
		return s.finish(Failed, fmt.Errorf("force %s: %w", p.Name, err))
	}
	return s.toEnd(ctx, p.Name, p.Enabled)
}

// toEnd follows a transition that is left as it is if it does not complete: it was
// under way before.
func (s *session) toEnd(ctx context.Context, name string, enabled bool) (*Result, error) {
	if s.opts.Wait == 0 {
		return s.finish(Done, nil) // the state says whether it is complete
	}
	why, err := s.wait(ctx, name, enabled, s.opts.Wait, 0, leaveIt)
	switch {
	case err != nil:
		return s.finish(Failed, err)
	case why == "":
		return s.finish(Done, nil)
	}
	return s.finish(Failed, s.goesOn(name, why))
}

// All are the names of all livepatches in the order in which they can be taken
// away: the newest first, and before them those of which only the module is left.
func All(state *State) []string {
	var active, disabled []string
	for _, p := range state.Patches {
		if p.Phase == Disabled {
			disabled = append(disabled, p.Name)
		} else {
			active = append(active, p.Name)
		}
	}
	slices.Reverse(active)
	return append(disabled, active...)
}
