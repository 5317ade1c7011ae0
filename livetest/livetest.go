// Package livetest tries livepatches out: it boots the kernel they are made for in
// QEMU, loads and removes modules, runs commands before, during and after, and
// judges the results and the kernel log.
//
// It neither builds livepatches nor touches the kernel it runs on itself.
//
// Sources: the kernel's Documentation/ABI/testing/sysfs-kernel-livepatch and
// Documentation/livepatch/livepatch.rst.
package livetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/klpc/klpc/internal/vm"
)

// Kernel is the kernel to boot.
type Kernel struct {
	BzImage string // path
	// FindModule finds the file of one of the kernel's modules, see FindModuleIn;
	// nil: it has none.
	FindModule func(name string) (path string, ok bool)
}

// Defaults of Guest, in the guest's and the host's time alike.
const (
	defaultTimeout   = 3 * time.Minute
	defaultStepLimit = waitLimit*time.Second + 15*time.Second
)

// Guest is the machine that a script runs on.
type Guest struct {
	Kernel Kernel
	// Modules are paths of modules that the kernel does not come with, such as
	// livepatches. In the guest each is /modules/NAME.ko.
	Modules []string
	// Files are more files to put into the guest: path there to path here. Their
	// permission to be executed is kept.
	Files map[string]string
	// Disks are paths of raw disk images, see vm.Config.
	Disks []string
	// Append is added to the kernel command line.
	Append string

	Accel     vm.Accel      // empty: vm.Auto
	MemoryMB  int           // MiB; zero: 512
	CPUs      int           // zero: 2
	Timeout   time.Duration // for all of it; zero: 3 minutes
	StepLimit time.Duration // for one step, after which it is killed; zero: 75 s

	// Progress, if set, is called as steps begin and end, from one goroutine at
	// a time.
	Progress func(Event)
	// Console, if set, receives the guest's console as it comes.
	Console io.Writer
}

// Event is news of a running script.
type Event struct {
	Index, Total int // steps, counted from 0
	Step         Step
	Result       *StepResult // nil: the step begins
}

// Options is one standard test of a livepatch, see Sequence.
type Options struct {
	Guest
	Livepatch string   // path of the livepatch
	Targets   []string // names of modules that it patches, to be loaded
	// Checks are shell commands that must fail without the livepatch and pass with it.
	Checks []string
	// Shows are shell commands whose output is wanted with and without the livepatch.
	Shows []string
	// Order says whether the targets are loaded before or after the livepatch.
	Order Order
}

// Order says when the modules to patch are loaded.
type Order string

// The orders.
const (
	TargetsFirst Order = ""
	TargetsLate  Order = "late"
)

// Phases of the standard test.
const (
	PhaseBefore  = "before loading"
	PhaseLoading = "loading"
	PhasePatched = "patched"
	PhaseRemoval = "disabling and removal"
	PhaseAfter   = "after removal"
)

// Run tests one livepatch in the standard way. An error means that the test could
// not be made; a test that failed is a Report.
func Run(ctx context.Context, o Options) (*Report, error) {
	m, err := readModule(o.Livepatch)
	if err != nil {
		return nil, err
	}
	g := o.Guest
	g.Modules = append(append([]string(nil), g.Modules...), o.Livepatch)
	return Script(ctx, g, Sequence(m.name, o))
}

// Sequence returns the steps of the standard test of a livepatch: the checks must
// fail, pass while it is active, and fail again after its removal.
func Sequence(livepatch string, o Options) []Step {
	var steps []Step
	add := func(phase string, more ...Step) {
		for _, s := range more {
			steps = append(steps, s.In(phase))
		}
	}
	commands := func(phase string, check func(string) Step) {
		for _, c := range o.Shows {
			add(phase, Show(c))
		}
		for _, c := range o.Checks {
			add(phase, check(c))
		}
	}
	targets := func(phase string) {
		for _, t := range o.Targets {
			add(phase, Insmod(t))
		}
	}
	if o.Order == TargetsFirst {
		targets(PhaseBefore)
	}
	commands(PhaseBefore, CheckFails)
	add(PhaseLoading, Insmod(livepatch), WaitTransition(livepatch))
	if o.Order == TargetsLate {
		targets(PhaseLoading)
	}
	commands(PhasePatched, CheckPasses)
	add(PhaseRemoval, Disable(livepatch), WaitGone(livepatch), Rmmod(livepatch))
	commands(PhaseAfter, CheckFails)
	return steps
}

// kernelParameters are for the kernel command line. The log buffer must hold
// everything, the marks must not be dropped, the console is read when the guest
// dies; and a busy host must not look like a guest that hangs.
const kernelParameters = "loglevel=7 log_buf_len=4M printk.devkmsg=on watchdog_thresh=30 rcupdate.rcu_cpu_stall_timeout=60"

// Script boots the guest and runs the steps in it. An error means that it could
// not be done, or that ctx ended; steps that fail, a panic and a guest that hangs
// are a Report.
func Script(ctx context.Context, g Guest, steps []Step) (*Report, error) {
	if g.Timeout == 0 {
		g.Timeout = defaultTimeout
	}
	if g.StepLimit == 0 {
		g.StepLimit = defaultStepLimit
	}
	initrd, err := initramfs(ctx, g, steps)
	if err != nil {
		return nil, err
	}
	tell := func(i int, r *StepResult) {
		if g.Progress != nil && i < len(steps) {
			g.Progress(Event{Index: i, Total: len(steps), Step: steps[i], Result: r})
		}
	}
	got := newFrames(
		func(i int) { tell(i, nil) },
		func(i int, e stepEnd) {
			if i < len(steps) {
				r := result(steps[i], &e, g.StepLimit)
				tell(i, &r)
			}
		})
	end, err := vm.Boot(ctx, vm.Config{
		Kernel: g.Kernel.BzImage, Initrd: initrd, Append: strings.TrimSpace(kernelParameters + " " + g.Append), Disks: g.Disks,
		Accel: g.Accel, MemoryMB: g.MemoryMB, CPUs: g.CPUs, Timeout: g.Timeout,
		Console: g.Console, Port: got,
	})
	if err != nil {
		return nil, err
	}
	return newReport(steps, g, got, end), nil
}

// initramfs collects everything that the guest needs.
func initramfs(ctx context.Context, g Guest, steps []Step) ([]byte, error) {
	var errs []error
	for i, s := range steps {
		if err := s.check(); err != nil {
			errs = append(errs, fmt.Errorf("step %d: %w", i+1, err))
		}
	}
	mods, err := newModules(g.Modules, g.Kernel.FindModule)
	errs = append(errs, err)
	extra, err := readFiles(g.Files)
	errs = append(errs, err)
	busybox, err := vm.FindBusybox()
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	files, err := guestFiles(steps, mods)
	if err != nil {
		return nil, err
	}
	return vm.Initramfs(ctx, busybox, initScript(steps, g.StepLimit), append(files, extra...))
}
