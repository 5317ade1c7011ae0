package livetest

import "fmt"

// Kind says what a step does in the guest.
type Kind string

// The kinds of steps.
const (
	KindInsmod     Kind = "insmod"     // load a module, and before it the modules it depends on
	KindRmmod      Kind = "rmmod"      // remove a module, once nothing uses it any more
	KindCheck      Kind = "check"      // run a command and judge its exit status
	KindExec       Kind = "exec"       // run a command that prepares something
	KindShow       Kind = "show"       // run a command for its output only
	KindTransition Kind = "transition" // wait until every task has switched
	KindDisable    Kind = "disable"    // begin to disable a livepatch
	KindGone       Kind = "gone"       // wait until a livepatch is disabled and freed
)

// Expect is what a step's exit status must be.
type Expect string

// The expectations.
const (
	Pass Expect = "pass" // 0
	Fail Expect = "fail" // anything but 0
	Any  Expect = "any"
)

// Step is one thing to do in the guest. The steps of a script run one after the
// other. When one of them fails that others build on (everything but checks and
// shows), the script ends there.
type Step struct {
	Kind    Kind
	Subject string // name of the module, or the shell command
	Expect  Expect
	// Phase is the part of the test that the step belongs to, for people.
	Phase string
	// MayWarn leaves the kernel log out of the judgement while this step runs.
	MayWarn bool
}

// Insmod loads a module: one that Guest.Modules holds or that
// Kernel.FindModule finds. Modules that it depends on are loaded before it.
func Insmod(module string) Step { return Step{Kind: KindInsmod, Subject: module, Expect: Pass} }

// InsmodFails is a module that the kernel must refuse.
func InsmodFails(module string) Step { return Step{Kind: KindInsmod, Subject: module, Expect: Fail} }

// Rmmod removes a module. While it is in use it is tried again, for some seconds.
func Rmmod(module string) Step { return Step{Kind: KindRmmod, Subject: module, Expect: Pass} }

// CheckPasses runs a shell command that must exit with 0.
func CheckPasses(command string) Step {
	return Step{Kind: KindCheck, Subject: command, Expect: Pass}
}

// CheckFails runs a shell command that must not exit with 0.
func CheckFails(command string) Step {
	return Step{Kind: KindCheck, Subject: command, Expect: Fail}
}

// Exec runs a shell command that must succeed, or else the script ends.
func Exec(command string) Step { return Step{Kind: KindExec, Subject: command, Expect: Pass} }

// Show runs a shell command of which only the output matters.
func Show(command string) Step { return Step{Kind: KindShow, Subject: command, Expect: Any} }

// WaitTransition waits until a livepatch's transition is complete, in either direction.
func WaitTransition(livepatch string) Step {
	return Step{Kind: KindTransition, Subject: livepatch, Expect: Pass}
}

// Disable begins to disable a livepatch; WaitGone waits for the end of it.
func Disable(livepatch string) Step {
	return Step{Kind: KindDisable, Subject: livepatch, Expect: Pass}
}

// WaitGone waits until a livepatch has left /sys/kernel/livepatch, because it was
// disabled or replaced. Then it can be removed.
func WaitGone(livepatch string) Step {
	return Step{Kind: KindGone, Subject: livepatch, Expect: Pass}
}

// In returns the step with its phase set.
func (s Step) In(phase string) Step {
	s.Phase = phase
	return s
}

// Name is the step as people are told of it.
func (s Step) Name() string {
	switch s.Kind {
	case KindInsmod:
		return "load " + s.Subject
	case KindRmmod:
		return "remove " + s.Subject
	case KindTransition:
		return "wait for the transition of " + s.Subject
	case KindDisable:
		return "disable " + s.Subject
	case KindGone:
		return "wait until " + s.Subject + " is disabled"
	}
	return string(s.Kind) + ": " + s.Subject
}

// stops tells whether nothing may run after the step if it fails.
func (s Step) stops() bool { return s.Kind != KindCheck && s.Kind != KindShow }

// met tells whether an exit status is the expected one.
func (s Step) met(exit int) bool {
	if s.Kind == KindInsmod && exit == dependencyFailed {
		return s.Expect == Any // the module itself was not even tried
	}
	return s.Expect == Any || (exit == 0) == (s.Expect == Pass)
}

// check reports what is wrong with a step before anything runs.
func (s Step) check() error {
	switch s.Kind {
	case KindInsmod, KindRmmod, KindTransition, KindDisable, KindGone:
		return checkModuleName(s.Subject)
	case KindCheck, KindExec, KindShow:
		if s.Subject == "" {
			return fmt.Errorf("%s: no command", s.Kind)
		}
		return nil
	}
	return fmt.Errorf("unknown kind of step %q", s.Kind)
}
