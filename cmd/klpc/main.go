// Command klpc compiles a source diff into a Linux kernel livepatch.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/klpc/klpc/pipeline"
)

// Exit codes, the same for all commands.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNothing     = 3
	exitUnpatchable = 4
)

// app is what commands need from their surroundings.
type app struct {
	out, err io.Writer
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

// silentError is a failure that has been reported already.
type silentError struct{ code int }

func (e silentError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

func main() {
	// The first signal ends the work in good order; a second one kills.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot(&app{out: stdout, err: stderr})
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var usage usageError
	var silent silentError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &silent):
		return silent.code
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "klpc: %v\n\n%s", err, cmd.UsageString())
		return exitUsage
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "klpc: interrupted")
		return exitFailed
	case errors.Is(err, pipeline.ErrNothing):
		fmt.Fprintf(stderr, "klpc: %v\n", err)
		return exitNothing
	case errors.Is(err, pipeline.ErrUnpatchable):
		fmt.Fprintf(stderr, "klpc: %v\n", err)
		return exitUnpatchable
	}
	fmt.Fprintf(stderr, "klpc: %v\n", err)
	return exitFailed
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "klpc",
		Short: "Compile a source diff into a Linux kernel livepatch",
		Long: `klpc compiles a source diff into a Linux kernel livepatch: it compiles the files
that the patch touches as they are and as patched, compares them function by
function, and builds a module that redirects the functions that changed.

Exit codes: 0 done, 1 failed, 2 usage, 3 nothing to patch, 4 this change cannot
be livepatched. Nothing is written on 1 to 4.`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newBuild(a, runBuild), newDiff(a), newInspect(a), newTest(a, runTest))
	return root
}

// exactly and atLeast are cobra's argument counts as usage errors.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{fmt.Errorf("needs %s, got %d arguments", what, len(args))}
		}
		return nil
	}
}

func atLeast(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < n {
			return usageError{fmt.Errorf("needs %s", what)}
		}
		return nil
	}
}

// version is set by the build from the repository's tag or commit.
func version() string {
	if buildVersion != "" {
		return buildVersion
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

var buildVersion string // -ldflags "-X main.buildVersion=…"
