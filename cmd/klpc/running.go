package main

// What the commands on the running kernel have in common: who may run them, the
// lock, how results are printed.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/klpc/klpc/internal/ui"
	"github.com/klpc/klpc/livepatch"
)

// defaultWait is how long a transition may take: the kernel stirs up tasks that
// have not switched every 15 s.
const defaultWait = time.Minute

// defaultLockWait is how long another klpc may hold the lock: longer than a
// transition takes by default, there and back.
const defaultLockWait = 2 * time.Minute

// changeOptions are the flags of all commands that change which livepatches are
// loaded.
type changeOptions struct {
	wait       seconds
	forceAfter seconds
	onTimeout  timeoutPolicy
	lockWait   seconds
	dryRun     bool
	json       bool
	progress   ui.Mode
}

// flags adds those that each of them has.
func (o *changeOptions) flags(cmd *cobra.Command) {
	o.wait, o.lockWait = seconds(defaultWait), seconds(defaultLockWait)
	f := cmd.Flags()
	f.Var(&o.wait, "wait", "how long the transition may take, as 30s or 2m: `D`")
	f.BoolVar(&o.dryRun, "dry-run", false, "name each step and do none")
	f.BoolVar(&o.json, "json", false, "print the result as one JSON document")
	progressFlag(cmd, &o.progress)
}

// lockFlag is for those that take the lock.
func (o *changeOptions) lockFlag(cmd *cobra.Command) {
	cmd.Flags().Var(&o.lockWait, "lock-wait", "how long another klpc may keep this one waiting: `D`")
}

// stallFlags are for those that begin a transition.
func (o *changeOptions) stallFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Var(&o.forceAfter, "force-after", "force the transition if it is not complete after `D`; read about klpc force first")
	o.onTimeout = timeoutReverse
	f.Var(&o.onTimeout, "on-timeout", "what to do if the transition is not complete in time: `WHAT` is reverse or leave")
	completeFlag(cmd, "on-timeout", string(timeoutReverse), string(timeoutLeave))
}

func (o *changeOptions) livepatch(p *ui.Progress) livepatch.Options {
	return livepatch.Options{
		Wait: time.Duration(o.wait), ForceAfter: time.Duration(o.forceAfter), Leave: o.onTimeout == timeoutLeave,
		DryRun: o.dryRun, Events: transitionEvents(p, o.dryRun),
	}
}

// timeoutPolicy is a flag's value.
type timeoutPolicy string

const (
	timeoutReverse timeoutPolicy = "reverse"
	timeoutLeave   timeoutPolicy = "leave"
)

// String returns the policy's name.
func (t *timeoutPolicy) String() string { return string(*t) }

// Type names the kind of value for the flag's help.
func (t *timeoutPolicy) Type() string { return "WHAT" }

// Set takes a policy by its name.
func (t *timeoutPolicy) Set(name string) error {
	switch p := timeoutPolicy(name); p {
	case timeoutReverse, timeoutLeave:
		*t = p
		return nil
	}
	return fmt.Errorf("want %s or %s", timeoutReverse, timeoutLeave)
}

// seconds is a flag's duration: 30s, 2m, or a plain number of seconds.
type seconds time.Duration

// String is the form that Set reads.
func (s *seconds) String() string { return time.Duration(*s).String() }

// Type names the kind of value for the flag's help.
func (s *seconds) Type() string { return "duration" }

// Set reads a duration that is not negative.
func (s *seconds) Set(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil {
		d, err = time.ParseDuration(text + "s")
	}
	if err != nil || d < 0 {
		return errors.New("give a duration such as 30s or 2m")
	}
	*s = seconds(d)
	return nil
}

// transitionEvents shows what the package livepatch does.
func transitionEvents(p *ui.Progress, dryRun bool) livepatch.Events {
	return livepatch.Events{
		Checked: func(all []livepatch.Finding) {
			if dryRun {
				return // they are part of the result
			}
			for _, f := range all {
				if f.Verdict == livepatch.Warning || f.Verdict == livepatch.Unknown && f.Hint != "" {
					p.Note(findingText(f))
				}
			}
		},
		Step: func(s livepatch.Step) {
			if !dryRun {
				p.Begin(ui.Step{Name: string(s.Action), Text: s.String()})
			}
		},
		Tasks: func(_ string, t livepatch.Tasks) { p.Unit(ui.Unit{Done: t.Switched, Total: t.Total, Ended: true}) },
		Blocked: func(name string, tasks []livepatch.Task) {
			p.Note(fmt.Sprintf("the transition of %s waits for\n%s", name, livepatch.TasksText(tasks)))
		},
		Note: p.Note,
	}
}

func findingText(f livepatch.Finding) string {
	text := fmt.Sprintf("%s: %s", f.Check, f.Detail)
	if f.Hint != "" {
		text += "\nwhat to do: " + f.Hint
	}
	return text
}

// needLinux says whether there can be a kernel with livepatches here.
func needLinux() error {
	if runtime.GOOS != "linux" {
		return fmt.Errorf("livepatches are Linux's, and this is %s", runtime.GOOS)
	}
	return nil
}

// needRoot says what is missing for changing the running kernel.
func needRoot(what string) error {
	if err := needLinux(); err != nil {
		return err
	}
	if uid := os.Geteuid(); uid != 0 {
		return fmt.Errorf("%s needs root, and this is user %d: sudo klpc %[1]s ... (--dry-run works without)", what, uid)
	}
	return nil
}

// lockRunning takes the lock that serialises changes.
func (a *app) lockRunning(ctx context.Context, what string, o changeOptions, p *ui.Progress) (unlock func(), err error) {
	return livepatch.Lock(ctx, livepatch.LockPath, what, time.Duration(o.lockWait), func(holder string) {
		p.Note(fmt.Sprintf("waiting for %s, which holds %s", holder, livepatch.LockPath))
	})
}

// change is one command that changes livepatches, ready to run on each name.
type change struct {
	command string
	args    []string
	find    func() ([]string, error) // the names, instead of args, once the lock is held; may be nil
	locked  bool                     // it takes the lock
	options changeOptions
	each    func(ctx context.Context, name string, o livepatch.Options) (*livepatch.Result, error)
	after   func() // what is done at the end, in a real run; may be nil
}

// namedChange are the flags of a command on one livepatch.
type namedChange struct {
	changeOptions
	name string
}

// command adds to a command's texts what all of these have.
func (o *namedChange) command(cmd *cobra.Command, run func(context.Context) error) *cobra.Command {
	cmd.Args = exactly(1, "one NAME")
	cmd.ValidArgsFunction = loadedNames
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.name = args[0]
		return run(cmd.Context())
	}
	o.flags(cmd)
	return cmd
}

// change is such a command with its flags.
func (o *namedChange) change(command string, do func(context.Context, livepatch.System, string, livepatch.Options) (*livepatch.Result, error)) change {
	return change{command: command, args: []string{o.name}, options: o.changeOptions,
		each: func(ctx context.Context, name string, lo livepatch.Options) (*livepatch.Result, error) {
			return do(ctx, livepatch.Linux{}, name, lo)
		}}
}

// changed is the JSON document of a command that changes livepatches.
type changed struct {
	Command string              `json:"command"`
	DryRun  bool                `json:"dry_run"`
	Results []*livepatch.Result `json:"results"`
}

// runChange runs a command on each of its arguments, also after one has failed,
// and reports.
func (a *app) runChange(ctx context.Context, c change) error {
	if !c.options.dryRun {
		if err := needRoot(c.command); err != nil {
			return err
		}
	} else if err := needLinux(); err != nil {
		return err
	}
	p := a.progress(c.options.progress)
	defer p.Close()
	if c.locked && !c.options.dryRun {
		unlock, err := a.lockRunning(ctx, c.command+" "+strings.Join(c.args, " "), c.options, p)
		if err != nil {
			return err
		}
		defer unlock()
	}
	if c.find != nil {
		var err error
		if c.args, err = c.find(); err != nil {
			return err
		}
		if len(c.args) == 0 {
			p.Note("no livepatch is loaded: nothing to do")
		}
	}
	doc := changed{Command: c.command, DryRun: c.options.dryRun, Results: []*livepatch.Result{}}
	var errs []error
	for i, arg := range c.args {
		if i > 0 && ctx.Err() != nil {
			errs = append(errs, fmt.Errorf("interrupted before %s: nothing was done there", strings.Join(c.args[i:], ", ")))
			break
		}
		r, err := c.each(ctx, arg, c.options.livepatch(p))
		if r != nil {
			doc.Results = append(doc.Results, r)
		}
		if err != nil {
			errs = append(errs, withBlocking(r, err))
		}
	}
	if c.after != nil && !c.options.dryRun {
		c.after()
	}
	p.Close()
	if err := a.printChanged(c, doc); err != nil {
		errs = append(errs, err)
	}
	return a.reported(ctx, errs)
}

// reported prints errors. After an interruption it is said here what state
// things are in: main would only say that there was one.
func (a *app) reported(ctx context.Context, errs []error) error {
	err := errors.Join(errs...)
	if err == nil || ctx.Err() == nil {
		return err
	}
	a.printError(err)
	return silentError{exitFailed}
}

// withBlocking adds the tasks that a transition has been waiting for.
func withBlocking(r *livepatch.Result, err error) error {
	if r == nil || len(r.Blocking) == 0 {
		return err
	}
	tasks := strings.TrimRight(livepatch.TasksText(r.Blocking), "\n")
	return fmt.Errorf("%w\nit has been waiting for\n  %s", err, strings.ReplaceAll(tasks, "\n", "\n  "))
}

func (a *app) printChanged(c change, doc changed) error {
	if c.options.json {
		return printJSON(a.out, doc)
	}
	for _, r := range doc.Results {
		if _, err := fmt.Fprint(a.out, resultText(r)); err != nil {
			return err
		}
	}
	return nil
}

// resultText is what a command has done, for people.
func resultText(r *livepatch.Result) string {
	switch r.Outcome {
	case livepatch.Planned:
		text := fmt.Sprintf("%s: nothing is done, this is a dry run\n", r.Name)
		if len(r.Checks) > 0 {
			text += "checks:\n" + livepatch.FindingsText(r.Checks)
		}
		return text + "steps:\n" + livepatch.StepsText(r.Steps)
	case livepatch.Unchanged:
		if r.State == livepatch.NotLoaded {
			return fmt.Sprintf("%s: not loaded, nothing to do\n", r.Name)
		}
		return fmt.Sprintf("%s: %s already, nothing to do\n", r.Name, r.State)
	case livepatch.Done:
		text := fmt.Sprintf("%s: %s\n", r.Name, r.State)
		for _, old := range r.Replaced {
			text += fmt.Sprintf("%s: replaced; its module does nothing any more, klpc unload %[1]s removes it\n", old)
		}
		return text
	}
	return "" // the error says it
}

// loadedNames completes the names of loaded livepatches.
func loadedNames(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	state, err := livepatch.Read(livepatch.Linux{}.FS())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []cobra.Completion
	for _, p := range state.Patches {
		names = append(names, p.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// isFile tells FILE.ko from NAME.
func isFile(arg string) bool {
	if strings.ContainsRune(arg, filepath.Separator) || strings.Contains(arg, ".ko") {
		return true
	}
	info, err := os.Stat(arg)
	return err == nil && !info.IsDir()
}
