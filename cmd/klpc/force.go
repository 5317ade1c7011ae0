package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/klpc/klpc/livepatch"
)

// forceOptions are the flags of klpc force.
type forceOptions struct {
	namedChange
	yes bool
}

func newForce(a *app, f func(context.Context, *app, forceOptions) error) *cobra.Command {
	var o forceOptions
	cmd := o.command(&cobra.Command{
		Use:   "force NAME [flags]",
		Short: "Make the tasks switch that hold up a transition",
		Long: `force makes all tasks switch that have not, wherever they are. The kernel's
consistency model is off for them: a task may run old and new code at once, which
can crash the machine if the two do not fit together. The code that they leave
must stay: a livepatch that is forced while it is being disabled or replaced can
never be removed, until the next boot.

It asks first. --yes says so beforehand; without a terminal it is needed. It needs
no lock, so that it reaches a transition that another klpc is waiting for.`,
		Example: "  klpc force livepatch_fix",
	}, func(ctx context.Context) error {
		if !o.yes && !o.dryRun && !term.IsTerminal(int(os.Stdin.Fd())) {
			return usageError{errors.New("there is no terminal to ask on: give --yes to force the transition")}
		}
		return f(ctx, a, o)
	})
	cmd.Flags().BoolVar(&o.yes, "yes", false, "do not ask")
	return cmd
}

func runForce(ctx context.Context, a *app, o forceOptions) error {
	c := o.change("force", func(ctx context.Context, sys livepatch.System, name string, lo livepatch.Options) (*livepatch.Result, error) {
		if !o.yes && !o.dryRun {
			if err := a.confirmForce(name); err != nil {
				return livepatch.Failure(name, err), err
			}
		}
		return livepatch.Force(ctx, sys, name, lo)
	})
	return a.runChange(ctx, c)
}

// confirmForce shows what would be forced, and asks. What is not in transition
// needs no answer.
func (a *app) confirmForce(name string) error {
	root := livepatch.Linux{}.FS()
	state, err := livepatch.Read(root)
	if err != nil {
		return err
	}
	p := state.Find(name)
	if p == nil || !p.Transition {
		return nil
	}
	livepatch.Explain(root, state)
	fmt.Fprintf(a.err, "%s: %s, %s. It waits for\n%s", p.Name, p.Phase, p.Tasks, livepatch.TasksText(p.Blocking))
	fmt.Fprint(a.err, "Forcing these tasks may crash the machine if the old code and the new do not fit together.\nForce the transition? [y/N] ")
	answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err == nil && strings.HasPrefix(strings.ToLower(strings.TrimSpace(answer)), "y") {
		return nil
	}
	return fmt.Errorf("%s: not forced", p.Name)
}
