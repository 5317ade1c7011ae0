package livepatch

// What the commands have in common: named steps, which a dry run only names, and
// following a transition to its end.
//
// One rule holds for every transition that is begun here: if it does not
// complete in time, or if klpc is interrupted, it is taken back, so that the
// system is as before; Options.Leave leaves it as it is instead. Either way the
// error says in which state that is.

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/klpc/klpc/internal/modname"
)

// Options say how transitions are followed.
type Options struct {
	// Wait is how long a transition may take; zero: it is not followed, but left
	// to the kernel.
	Wait time.Duration
	// ForceAfter is after how long it is forced; zero: never.
	ForceAfter time.Duration
	// Leave leaves a transition alone that does not complete in time, or that is
	// under way when klpc is interrupted, instead of taking it back.
	Leave bool
	// AllowDrop permits Load to replace livepatches whose functions the new one
	// does not patch.
	AllowDrop bool
	// BeforeInsert, if set, is called when all checks are through and the module
	// is about to be loaded.
	BeforeInsert func()
	// DryRun names each step and does none.
	DryRun bool
	Events Events
}

// Events are called as things happen; each may be nil.
type Events struct {
	Checked func([]Finding)      // before anything is done
	Step    func(Step)           // a step begins, or would
	Tasks   func(string, Tasks)  // how far a livepatch's transition is
	Blocked func(string, []Task) // tasks that a transition has been waiting for
	Note    func(string)
}

// Action is the kind of a step.
type Action string

// The actions.
const (
	ActionInsert  Action = "insert"  // load a module
	ActionRemove  Action = "remove"  // remove a module
	ActionDisable Action = "disable" // begin a transition to the old code
	ActionReverse Action = "reverse" // turn a transition round
	ActionForce   Action = "force"   // switch the tasks that have not
	ActionWait    Action = "wait"    // for a transition
)

// Step is one thing that is done to the system.
type Step struct {
	Action Action `json:"action"`
	Detail string `json:"detail"`
}

// Outcome is what became of a livepatch.
type Outcome string

// The outcomes.
const (
	Done      Outcome = "done"       // what was asked for
	Unchanged Outcome = "unchanged"  // nothing had to be done
	Planned   Outcome = "planned"    // a dry run
	TakenBack Outcome = "taken back" // did not complete: the system is as before
	Failed    Outcome = "failed"
)

// Result tells what was done to one livepatch. Lists are never nil.
type Result struct {
	Name     string    `json:"name"`
	Outcome  Outcome   `json:"result"`
	State    string    `json:"state"` // of the livepatch afterwards: a Phase, or "not loaded"
	Checks   []Finding `json:"checks"`
	Steps    []Step    `json:"steps"`
	Replaced []string  `json:"replaced"` // livepatches that were replaced by this one
	Blocking []Task    `json:"blocking"` // tasks that the transition was waiting for at the end
	Error    string    `json:"error,omitempty"`
}

// Active tells whether the livepatch patches something afterwards, if only in part.
func (r *Result) Active() bool { return r.State == string(Enabled) || r.State == string(Enabling) }

// Failure is the result for a livepatch of which not even the file can be read.
func Failure(name string, err error) *Result {
	r := newResult(name)
	r.Error = err.Error()
	return r
}

func newResult(name string) *Result {
	return &Result{
		Name: modname.Canonical(name), Outcome: Failed, State: NotLoaded,
		Checks: []Finding{}, Steps: []Step{}, Replaced: []string{}, Blocking: []Task{},
	}
}

// NotLoaded is the state of a livepatch of which nothing is loaded.
const NotLoaded = "not loaded"

// Timing of polls and retries.
const (
	pollFast   = 20 * time.Millisecond // while a transition is young
	pollSlow   = 200 * time.Millisecond
	young      = 2 * time.Second
	tasksEvery = time.Second // reading the state of every task is not free
	// stallAfter is when the tasks that block a transition are first named. The
	// kernel stirs them up after 15 s.
	stallAfter = 10 * time.Second
	retryEvery = time.Second
	// removeLimit is how long a module may stay in use after its livepatch has
	// been disabled: the kernel frees it a little later.
	removeLimit = 15 * time.Second
	// backLimit is how long klpc follows a transition that it takes back.
	backLimit = time.Minute
)

// session is one command on one livepatch.
type session struct {
	sys    System
	root   fs.FS
	opts   Options
	result *Result
}

func newSession(sys System, name string, o Options) *session {
	return &session{sys: sys, root: sys.FS(), opts: o, result: newResult(name)}
}

// step names a step and does it, unless this is a dry run.
func (s *session) step(action Action, detail string, do func() error) error {
	st := Step{action, detail}
	s.result.Steps = append(s.result.Steps, st)
	if s.opts.Events.Step != nil {
		s.opts.Events.Step(st)
	}
	if s.opts.DryRun {
		return nil
	}
	return do()
}

func (s *session) note(format string, args ...any) {
	if s.opts.Events.Note != nil {
		s.opts.Events.Note(fmt.Sprintf(format, args...))
	}
}

// finish completes the result.
func (s *session) finish(outcome Outcome, err error) (*Result, error) {
	s.result.Outcome = outcome
	if s.opts.DryRun && err == nil && outcome == Done {
		s.result.Outcome = Planned
	}
	s.result.State = s.now()
	if err != nil {
		s.result.Error = err.Error()
	}
	return s.result, err
}

// now is the state that the livepatch is in.
func (s *session) now() string {
	f := readFlags(s.root, s.result.Name)
	if f.exists {
		return string(phase(f.enabled, f.transition))
	}
	if _, err := fs.Stat(s.root, path.Join(sysModule, s.result.Name)); err == nil {
		return string(Disabled)
	}
	return NotLoaded
}

// flags are the two files that say what a livepatch does.
type flags struct{ exists, enabled, transition bool }

func readFlags(root fs.FS, name string) flags {
	r := reader{root: root, state: &State{}}
	dir := path.Join(sysLivepatch, name)
	enabled, ok1 := r.flag(path.Join(dir, "enabled"))
	transition, ok2 := r.flag(path.Join(dir, "transition"))
	return flags{ok1 && ok2, enabled, transition}
}

// end is how following a transition ended.
type end int

const (
	completed   end = iota
	turned          // somebody else has turned it round, or removed the livepatch
	tooLong         // the time is over
	interrupted     // klpc is to end
)

// follow waits until the livepatch is enabled or disabled, and no longer in
// transition. forceAfter of zero: it is never forced.
func (s *session) follow(ctx context.Context, name string, enabled bool, limit, forceAfter time.Duration) (end, error) {
	start := time.Now()
	var told time.Time
	forced, blockedTold := false, false
	for {
		f := readFlags(s.root, name)
		switch {
		case !f.exists && !enabled, f.exists && !f.transition && f.enabled && enabled:
			return completed, nil
		case !f.exists, f.enabled != enabled:
			return turned, nil
		}
		elapsed := time.Since(start)
		if forceAfter > 0 && elapsed >= forceAfter && !forced && f.transition {
			forced = true
			s.note("%s: not complete after %s: it is forced", name, short(forceAfter))
			if err := s.force(name); err != nil {
				return tooLong, err
			}
		}
		if elapsed >= limit {
			return tooLong, nil
		}
		if time.Since(told) >= tasksEvery && elapsed >= tasksEvery/2 {
			told = time.Now()
			s.tell(name, enabled)
		}
		if elapsed >= stallAfter && !blockedTold {
			blockedTold = true
			s.tellBlocked(name)
		}
		poll := pollSlow
		if elapsed < young {
			poll = pollFast
		}
		if sleep(ctx, poll) != nil {
			return interrupted, nil
		}
	}
}

// limit is how long a transition is followed that is begun here. What was forced
// still takes a moment to complete.
func (s *session) limit() time.Duration {
	if s.opts.ForceAfter > 0 {
		return max(s.opts.Wait, s.opts.ForceAfter+backLimit)
	}
	return s.opts.Wait
}

// leaveIt is what happens to a transition that was not begun here.
const leaveIt = "leave it as it is"

// policy says what happens to a transition that does not complete.
func (s *session) policy(started bool, back string) string {
	switch {
	case s.opts.ForceAfter > 0:
		return fmt.Sprintf("(after %s) force it", short(s.opts.ForceAfter))
	case s.opts.Leave, !started:
		return leaveIt
	}
	return back
}

// wait follows a transition as a step of its own; then is what comes if it does not
// complete. why says why it has not: empty if it has, and in a dry run. A transition
// that somebody else has turned round is an error.
func (s *session) wait(ctx context.Context, name string, enabled bool, limit, forceAfter time.Duration, then string) (why string, err error) {
	e := completed
	err = s.step(ActionWait, fmt.Sprintf("the transition of %s, at most %s, then %s", name, short(limit), then), func() (err error) {
		e, err = s.follow(ctx, name, enabled, limit, forceAfter)
		return err
	})
	switch {
	case err != nil, e == completed:
		return "", err
	case e == turned:
		return "", fmt.Errorf("%s: the transition was turned round by somebody else; it is now %s", name, s.now())
	case e == interrupted:
		why = "interrupted"
	default:
		why = fmt.Sprintf("not complete after %s", short(limit))
	}
	s.result.Blocking = s.blocking(name)
	return why, nil
}

// goesOn is the error for a transition that is left as it is.
func (s *session) goesOn(name, why string) error {
	return fmt.Errorf("%s: the transition was %s; it goes on (%s): klpc status %[1]s shows it, klpc reverse %[1]s takes it back", name, why, s.now())
}

// tell reports how far a transition is.
func (s *session) tell(name string, enabled bool) {
	if s.opts.Events.Tasks != nil {
		r := reader{root: s.root, state: &State{}}
		s.opts.Events.Tasks(name, *r.tasks(enabled))
	}
}

func (s *session) tellBlocked(name string) {
	if tasks := s.blocking(name); len(tasks) > 0 && s.opts.Events.Blocked != nil {
		s.opts.Events.Blocked(name, tasks)
	}
}

// blocking are the tasks that a transition waits for.
func (s *session) blocking(name string) []Task {
	state, err := Read(s.root)
	if err != nil {
		return []Task{}
	}
	p := state.Find(name)
	if p == nil || !p.Transition {
		return []Task{}
	}
	return ReadBlocking(s.root, state, p)
}

// set writes to a livepatch's file enabled. While another transition is under
// way, the kernel says EBUSY: it is tried again.
func (s *session) set(ctx context.Context, name string, enabled bool) error {
	deadline := time.Now().Add(s.opts.Wait)
	for {
		err := s.sys.Write(path.Join(sysLivepatch, name, "enabled"), aim(enabled))
		if !errors.Is(err, syscall.EBUSY) || !time.Now().Before(deadline) {
			return s.writeError(name, enabled, err)
		}
		if err := sleep(ctx, retryEvery); err != nil {
			return fmt.Errorf("%s: another transition is under way: %w", name, err)
		}
	}
}

func (s *session) writeError(name string, enabled bool, err error) error {
	what := map[bool]string{false: "disable", true: "enable"}[enabled]
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EBUSY):
		return fmt.Errorf("%s %s: another transition is under way: %s", what, name, s.others(name))
	case errors.Is(err, syscall.EINVAL):
		return fmt.Errorf("%s %s: the kernel says that this cannot be done in the state it is in (%s)", what, name, s.now())
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s %s: %w: this needs root", what, name, err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s %s: it has gone meanwhile", what, name)
	}
	return fmt.Errorf("%s %s: %w", what, name, err)
}

// others names the livepatch whose transition keeps another one waiting.
func (s *session) others(name string) string {
	state, err := Read(s.root)
	if err != nil {
		return err.Error()
	}
	p := state.InTransition()
	if p == nil || p.Name == modname.Canonical(name) {
		return "it has ended just now, try again"
	}
	return fmt.Sprintf("that of %s (%s); klpc status says what it waits for", p.Name, p.Phase)
}

// force makes the tasks that have not switched do so.
func (s *session) force(name string) error {
	return s.step(ActionForce, name+": switch the tasks that have not", func() error {
		err := s.sys.Write(path.Join(sysLivepatch, name, "force"), "1")
		if errors.Is(err, syscall.EINVAL) || errors.Is(err, fs.ErrNotExist) {
			return nil // the transition has ended meanwhile
		}
		return err
	})
}

// remove removes the module of a disabled livepatch, once no task is in its code.
func (s *session) remove(ctx context.Context, name, why string) error {
	return s.step(ActionRemove, "the module "+name+why, func() error {
		deadline := time.Now().Add(removeLimit)
		for {
			in := tasksIn(s.root, name)
			if len(in) > 0 && time.Now().Before(deadline) && sleep(ctx, pollSlow) == nil {
				continue
			}
			if len(in) > 0 {
				return fmt.Errorf("remove the module %s: %s (%d) is in its function %s, and would return to code that is gone; "+
					"the livepatch is disabled, and klpc unload %[1]s removes the module once the task has left it", name, in[0].Comm, in[0].TID, in[0].In)
			}
			err := s.sys.Remove(name)
			busy := errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EBUSY)
			switch {
			case err == nil, errors.Is(err, syscall.ENOENT):
				return nil
			case busy && time.Now().Before(deadline) && sleep(ctx, pollSlow) == nil:
				continue
			case busy:
				return fmt.Errorf("remove the module %s: it is still in use; "+
					"after a forced transition it stays in memory until the next boot, where it does nothing", name)
			case errors.Is(err, fs.ErrPermission):
				return fmt.Errorf("remove the module %s: %w: this needs root with CAP_SYS_MODULE", name, err)
			}
			return fmt.Errorf("remove the module %s: %w", name, err)
		}
	})
}

// takeBack turns a transition of this call round, so that the livepatch is
// enabled again or disabled again, as before. It returns what became of it.
func (s *session) takeBack(ctx context.Context, name string, enabled bool) error {
	// The call may have been interrupted: this much is done nevertheless.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), backLimit)
	defer cancel()
	err := s.step(ActionReverse, name+": back to "+string(phase(enabled, false)), func() error { return s.set(ctx, name, enabled) })
	if err != nil {
		return err
	}
	e, err := s.follow(ctx, name, enabled, backLimit, 0)
	if err != nil {
		return err
	}
	if e != completed {
		return fmt.Errorf("%s is still in transition back (%s)", name, s.now())
	}
	return nil
}

// plural is "1 task" or "2 tasks".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func list(names []string) string { return strings.Join(names, ", ") }
