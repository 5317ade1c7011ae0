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
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/klpc/klpc/internal/ui"
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
	args     []string     // the command line
	talk     *ui.Progress // what standard error is told through; nil: as plain text
	last     func()       // what is said after everything else; may be nil
}

// progress begins to show progress, as all that follows on standard error.
func (a *app) progress(mode ui.Mode) *ui.Progress {
	a.talk = ui.NewProgress(a.err, mode)
	return a.talk
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

// silentError is a failure that has been reported already.
type silentError struct{ code int }

func (e silentError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

func main() {
	// The first signal ends the work in good order; a second one kills. Those
	// that the caller ignores (nohup, a shell's background job) stay ignored.
	signals := slices.DeleteFunc([]os.Signal{os.Interrupt, syscall.SIGHUP}, signal.Ignored)
	ctx, stop := signal.NotifyContext(context.Background(), append(signals, syscall.SIGTERM)...)
	context.AfterFunc(ctx, stop)
	// A reader that goes away (klpc ... 2>&1 | head) ends it too. This one
	// stays caught, or the next line of progress would kill klpc before it
	// has cleared up.
	ctx, _ = signal.NotifyContext(ctx, syscall.SIGPIPE)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	a := &app{out: stdout, err: stderr, args: args}
	code := a.run(ctx, args, stdout, stderr)
	if a.last != nil {
		a.last()
	}
	if a.talk != nil {
		a.talk.Exit(code)
	}
	return code
}

func (a *app) run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot(a)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	running := false // what fails before a command runs is the command line
	root.PersistentPreRun = func(*cobra.Command, []string) { running = true }
	cmd, err := root.ExecuteContextC(ctx)
	var usage usageError
	var silent silentError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &silent):
		return silent.code
	case !running || errors.As(err, &usage):
		a.printError(err)
		fmt.Fprintf(stderr, "\n%s", cmd.UsageString())
		return exitUsage
	case ctx.Err() != nil:
		a.printError(errors.New("interrupted"))
		return exitFailed
	}
	a.printError(err)
	switch {
	case errors.Is(err, pipeline.ErrNothing):
		return exitNothing
	case errors.Is(err, pipeline.ErrUnpatchable):
		return exitUnpatchable
	}
	return exitFailed
}

// printError prints an error for people: each of several collected ones as a
// message of its own, further lines of a message indented.
func (a *app) printError(err error) {
	for _, e := range collected(err) {
		if a.talk != nil {
			a.talk.Error(e.Error())
			continue
		}
		fmt.Fprintf(a.err, "klpc: %s\n", indent(e.Error()))
	}
}

// indent sets the further lines of a message off from the next message.
func indent(text string) string {
	return strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n  ")
}

// collected takes errors.Join apart, but not errors that say more than what
// they wrap.
func collected(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	var texts []string
	for _, e := range joined.Unwrap() {
		all = append(all, collected(e)...)
		texts = append(texts, e.Error())
	}
	if strings.Join(texts, "\n") != err.Error() {
		return []error{err}
	}
	return all
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
				return fmt.Errorf("unknown command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetHelpCommand(newHelp())
	for _, g := range []struct {
		id, title string
		commands  []*cobra.Command
	}{
		{"make", "Make and prove livepatches:", []*cobra.Command{
			newBuild(a, runBuild), newVerify(a, runVerify), newTest(a, runTest), newSurvey(a, runSurvey),
			newDiff(a), newInspect(a), newSign(a, runSign), newCache(a, runCache)}},
		{"run", "On the running system:", []*cobra.Command{
			newLoad(a, runLoad), newUnload(a, runUnload), newDisable(a, runDisable), newEnable(a, runEnable),
			newReverse(a, runReverse), newForce(a, runForce), newStatus(a, runStatus), newList(a)}},
		{"store", "Installed livepatches, and those of each boot:", []*cobra.Command{
			newInstall(a, runInstall), newUninstall(a, runUninstall), newAccept(a, runAccept),
			newRestore(a, runRestore), newMark(a, runMark),
			newInstallService(a, runInstallService), newUninstallService(a, runUninstallService)}},
	} {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		for _, c := range g.commands {
			c.GroupID = g.id
			root.AddCommand(c)
		}
	}
	root.AddCommand(newMan(a))
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			adaptCompletion(c)
		}
	}
	return root
}

// newHelp is cobra's help command, except that an unknown topic is an error.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Show the help of a command",
		Example: "  klpc help build",
		RunE: func(help *cobra.Command, args []string) error {
			cmd, rest, err := help.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usageError{fmt.Errorf("unknown command %q", strings.Join(args, " "))}
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}

// adaptCompletion makes an unknown shell an error; cobra shows its help.
func adaptCompletion(c *cobra.Command) {
	c.Example = "  klpc completion bash >/etc/bash_completion.d/klpc"
	c.Args = func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return fmt.Errorf("no completion for the shell %q", args[0])
		}
		return nil
	}
	c.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}

// exactly counts arguments, in klpc's words.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return fmt.Errorf("needs %s, got %s", what, count(len(args), "argument"))
		}
		return nil
	}
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// complete offers files with an extension, as the shell completes them.
func complete(extension string) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return []cobra.Completion{extension}, cobra.ShellCompDirectiveFilterFileExt
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
