package livepatch

// Loading. A livepatch's module calls klp_enable_patch from its init function,
// so that finit_module(2) returns when the transition has begun, or fails with
// what klp_enable_patch has returned.

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"
)

// ErrRefused is a livepatch that the checks do not let through.
var ErrRefused = errors.New("it is not loaded")

// Load checks a livepatch, loads it, and follows its transition. A livepatch
// that is loaded already is left alone, one that is being disabled is enabled
// again. The result tells what was done even if there is an error.
func Load(ctx context.Context, sys System, m *Module, o Options) (*Result, error) {
	s := newSession(sys, m.Name, o)
	state, err := Read(s.root)
	if err != nil {
		return s.finish(Failed, err)
	}
	s.result.Checks = Check(s.root, state, m, o.AllowDrop)
	if o.Events.Checked != nil {
		o.Events.Checked(s.result.Checks)
	}
	if err := refusal(m.Name, s.result.Checks); err != nil {
		return s.finish(Failed, err)
	}
	p := state.Find(m.Name)
	started := true // this call begins the transition
	switch {
	case p != nil && p.Phase == Enabled:
		return s.finish(Unchanged, nil)
	case p != nil && p.Phase == Enabling:
		started = false
	case p != nil && p.Phase == Disabling:
		err = s.step(ActionReverse, p.Name+", which is being disabled", func() error { return s.set(ctx, p.Name, true) })
	default:
		err = s.insert(ctx, state, m, p != nil)
	}
	if err != nil {
		return s.finish(Failed, err)
	}
	return s.complete(ctx, state, m.Name, started)
}

// refusal is an error of all findings that forbid loading, or nil.
func refusal(name string, findings []Finding) error {
	var errs []error
	for _, f := range findings {
		if f.Verdict != Refused {
			continue
		}
		text := fmt.Sprintf("%s: %s: %s", name, f.Check, f.Detail)
		if f.Hint != "" {
			text += "\nwhat to do: " + f.Hint
		}
		errs = append(errs, fmt.Errorf("%s", text))
	}
	if len(errs) == 0 {
		return nil
	}
	return errors.Join(append(errs, fmt.Errorf("%s: %w", name, ErrRefused))...)
}

// insert loads the module. stale: a module of that name is left over.
func (s *session) insert(ctx context.Context, state *State, m *Module, stale bool) error {
	if stale {
		if err := s.remove(ctx, m.Name, ", left over from a disabled livepatch"); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(s.opts.Wait)
	if other := state.InTransition(); other != nil {
		detail := fmt.Sprintf("the transition of %s (%s), at most %s", other.Name, other.Phase, short(s.opts.Wait))
		if err := s.step(ActionWait, detail, func() error { return s.awaitOther(ctx, other) }); err != nil {
			return err
		}
	}
	return s.step(ActionInsert, m.Path, func() error {
		if s.opts.BeforeInsert != nil {
			s.opts.BeforeInsert()
		}
		for {
			log := s.sys.Log()
			err := s.sys.Insert(m)
			lines := log()
			if err == nil {
				return nil
			}
			if !errors.Is(err, syscall.EBUSY) || isFtraceConflict(lines) || !time.Now().Before(deadline) {
				return insertError(m, err, lines)
			}
			s.note("%s: the kernel is busy with another transition: trying again", m.Name)
			if err := sleep(ctx, retryEvery); err != nil {
				return fmt.Errorf("load %s: interrupted while the kernel was busy: %w", m.Name, ErrRefused)
			}
		}
	})
}

// awaitOther waits for the transition of another livepatch, in whichever direction.
func (s *session) awaitOther(ctx context.Context, other *Patch) error {
	e, err := s.follow(ctx, other.Name, other.Enabled, s.opts.Wait, 0)
	switch {
	case err != nil:
		return err
	case e == interrupted:
		return fmt.Errorf("interrupted while waiting for the transition of %s: %w", other.Name, ErrRefused)
	case e == tooLong:
		s.result.Blocking = s.blocking(other.Name)
		return fmt.Errorf("the transition of %s is not complete after %s, and the kernel does one at a time: %w", other.Name, short(s.opts.Wait), ErrRefused)
	}
	return nil
}

// complete follows the transition of a livepatch that was loaded.
func (s *session) complete(ctx context.Context, before *State, name string, started bool) (*Result, error) {
	limit := s.limit()
	if limit == 0 {
		return s.finish(Done, nil) // the state says whether it is complete
	}
	why, err := s.wait(ctx, name, true, limit, s.opts.ForceAfter, s.policy(started, "reverse it and unload it"))
	switch {
	case err != nil:
		return s.finish(Failed, err)
	case why == "":
		if !s.opts.DryRun {
			s.result.Replaced = s.replaced(before, name)
		}
		return s.finish(Done, nil)
	case s.opts.Leave || !started:
		return s.finish(Failed, s.goesOn(name, why))
	}
	if err := s.takeBack(ctx, name, false); err != nil {
		return s.finish(Failed, fmt.Errorf("%s: %s; taking it back: %w", name, why, err))
	}
	if err := s.remove(context.WithoutCancel(ctx), name, ""); err != nil {
		return s.finish(TakenBack, fmt.Errorf("%s: %s; it was reversed and is disabled, but: %w", name, why, err))
	}
	return s.finish(TakenBack, fmt.Errorf("%s: %s; it was reversed and unloaded: the system is as before", name, why))
}

// replaced are the livepatches that were active before and are not any more.
func (s *session) replaced(before *State, name string) []string {
	var active []string
	for _, p := range before.Patches {
		if p.Phase != Disabled && p.Name != name {
			active = append(active, p.Name)
		}
	}
	gone := []string{}
	// The kernel frees them a little after the transition.
	for deadline := time.Now().Add(removeLimit); ; {
		gone = gone[:0]
		replacing := false
		for _, a := range active {
			f := readFlags(s.root, a)
			if !f.exists {
				gone = append(gone, a)
			} else if !f.enabled {
				replacing = true
			}
		}
		if !replacing || !time.Now().Before(deadline) {
			slices.Sort(gone)
			return gone
		}
		time.Sleep(pollSlow)
	}
}

// isFtraceConflict tells whether the kernel was busy because something else
// changes where a function's calls go (FTRACE_OPS_FL_IPMODIFY).
func isFtraceConflict(log []string) bool {
	return slices.ContainsFunc(log, func(l string) bool { return strings.Contains(l, "failed to register ftrace handler") })
}
