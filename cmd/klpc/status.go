package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/klpc/klpc/internal/ui"
	"github.com/klpc/klpc/livepatch"
)

// statusOptions are the flags of klpc status.
type statusOptions struct {
	name     string // empty: all
	watch    bool
	interval seconds
	wait     waitFor
	timeout  seconds // zero: without limit
	store    string
	json     bool

	prometheus bool
}

func newStatus(a *app, f func(context.Context, *app, statusOptions) error) *cobra.Command {
	o := statusOptions{interval: seconds(time.Second)}
	cmd := &cobra.Command{
		Use:   "status [NAME] [flags]",
		Short: "Show the livepatches of the running kernel",
		Long: `status shows each livepatch that is loaded: where it stands among the others, whether
it is enabled, disabled or in transition and how many tasks have switched, what it
patches, and the tasks that a transition waits for, with their stacks. Below are
the installed ones. It needs no root, but says what it cannot read without.

--watch shows a page that updates itself, until it is interrupted.

--wait is for scripts: it waits until no transition is under way (transition), or
until NAME is enabled or disabled with its transition complete; without NAME, until
all are. Exit code 0: so it is; 1: it was not within --timeout.`,
		Example: `  klpc status
  klpc status --watch livepatch_fix
  # for node_exporter's textfile collector
  klpc status --prometheus >klpc.prom.new && mv klpc.prom.new klpc.prom
  klpc status --wait enabled --timeout 2m livepatch_fix && echo patched`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("needs at most one NAME, got %s", count(len(args), "argument"))
			}
			return nil
		},
		ValidArgsFunction: loadedNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				o.name = args[0]
			}
			switch {
			case o.watch && o.wait != "":
				return usageError{errors.New("--watch excludes --wait")}
			case o.wait == "" && cmd.Flags().Changed("timeout"):
				return usageError{errors.New("--timeout is for --wait")}
			case o.prometheus && (o.json || o.watch || o.name != ""):
				return usageError{errors.New("--prometheus excludes --json, --watch and NAME")}
			case o.interval <= 0:
				return usageError{errors.New("--interval must be more than 0")}
			}
			return f(cmd.Context(), a, o)
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&o.watch, "watch", false, "show a page that updates itself")
	fl.Var(&o.interval, "interval", "with --watch: update the page every `D`")
	fl.Var(&o.wait, "wait", "wait for `WHAT`: transition, enabled or disabled")
	completeFlag(cmd, "wait", waitNames()...)
	fl.Var(&o.timeout, "timeout", "with --wait: give up after `D`; 0: never")
	storeFlag(cmd, &o.store)
	fl.BoolVar(&o.json, "json", false, "print the result as one JSON document; with --watch, one a line for each change")
	fl.BoolVar(&o.prometheus, "prometheus", false, "print metrics for Prometheus")
	return cmd
}

// waitFor is a flag's value.
type waitFor string

const (
	waitTransition waitFor = "transition" // none is under way
	waitEnabled    waitFor = "enabled"
	waitDisabled   waitFor = "disabled"
)

func waitNames() []string {
	return []string{string(waitTransition), string(waitEnabled), string(waitDisabled)}
}

// String returns its name.
func (w *waitFor) String() string { return string(*w) }

// Type names the kind of value for the flag's help.
func (w *waitFor) Type() string { return "WHAT" }

// Set takes it by its name.
func (w *waitFor) Set(name string) error {
	if !slices.Contains(waitNames(), name) {
		return fmt.Errorf("want one of %s", strings.Join(waitNames(), ", "))
	}
	*w = waitFor(name)
	return nil
}

// reached tells whether what is waited for is so.
func (w waitFor) reached(s *livepatch.State) bool {
	if w == waitTransition {
		return s.InTransition() == nil
	}
	some := false
	for _, p := range s.Patches {
		switch {
		case p.Phase == livepatch.Disabled:
		case w == waitDisabled, p.Phase != livepatch.Enabled:
			return false
		default:
			some = true
		}
	}
	return some || w == waitDisabled
}

// readStatus reads the running kernel and the store in dir; name: of one livepatch.
func readStatus(dir, name string) (*status, error) {
	if err := needLinux(); err != nil {
		return nil, err
	}
	root := livepatch.Linux{}.FS()
	state, err := livepatch.Read(root)
	if err != nil {
		return nil, err
	}
	livepatch.Explain(root, state)
	s := &status{State: state, Installed: []installed{}}
	patches, c, err := openStore(dir)
	if err == nil {
		err = s.readStore(patches, c)
	}
	if err != nil {
		for _, e := range collected(err) {
			state.Unreadable = append(state.Unreadable, e.Error())
		}
	}
	s.only(name)
	return s, nil
}

// only leaves out all livepatches but the one of that name; "": none.
func (s *status) only(name string) {
	if name == "" {
		return
	}
	names := livepatch.FullNames(name)
	if p := s.Find(name); p != nil {
		names = []string{p.Name}
	}
	s.Patches = slices.DeleteFunc(s.Patches, func(p livepatch.Patch) bool { return !slices.Contains(names, p.Name) })
	s.Installed = slices.DeleteFunc(s.Installed, func(i installed) bool { return !slices.Contains(names, i.Name) })
}

// missing says that there is no livepatch of that name, loaded or installed.
func (s *status) missing(name string) error {
	if name == "" || len(s.Patches) > 0 || len(s.Installed) > 0 {
		return nil
	}
	return fmt.Errorf("%s: no such livepatch is loaded or installed", name)
}

func runStatus(ctx context.Context, a *app, o statusOptions) error {
	if o.watch {
		return a.watchStatus(ctx, o)
	}
	if o.wait != "" {
		if err := waitStatus(ctx, o); err != nil {
			return err
		}
	}
	s, err := readStatus(o.store, o.name)
	if err != nil {
		return err
	}
	switch {
	case o.json:
		err = printJSON(a.out, s)
	case o.prometheus:
		_, err = fmt.Fprint(a.out, s.prometheus())
	default:
		_, err = fmt.Fprint(a.out, s.text())
	}
	if o.wait == waitDisabled || o.wait == waitTransition {
		return err // it may have gone, which is what was waited for
	}
	return errors.Join(err, s.missing(o.name))
}

// statusPoll is how often --wait looks.
const statusPoll = 200 * time.Millisecond

// waitStatus waits until what is waited for is so.
func waitStatus(ctx context.Context, o statusOptions) error {
	if err := needLinux(); err != nil {
		return err
	}
	limit := ctx
	if o.timeout > 0 {
		var cancel context.CancelFunc
		limit, cancel = context.WithTimeout(ctx, time.Duration(o.timeout))
		defer cancel()
	}
	for {
		state, err := livepatch.Read(livepatch.Linux{}.FS())
		if err != nil {
			return err
		}
		s := &status{State: state}
		s.only(o.name)
		if o.wait.reached(state) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.Done():
			return fmt.Errorf("not so within %v (--wait %s); %s", time.Duration(o.timeout), o.wait, s.now(o.name))
		case <-time.After(statusPoll):
		}
	}
}

// now is the state in one line.
func (s *status) now(name string) string {
	var parts []string
	for _, p := range s.Patches {
		parts = append(parts, fmt.Sprintf("%s is %s", p.Name, p.Phase))
	}
	switch {
	case len(parts) > 0:
		return strings.Join(parts, ", ")
	case name != "":
		return name + " is not loaded"
	}
	return "no livepatch is loaded"
}

// text is the page of klpc status.
func (s *status) text() string { return s.Text() + s.installedText() }

// table is the output of klpc list.
func (s *status) table() string {
	text := ""
	if len(s.Patches) > 0 {
		text = s.Table()
	} else {
		text, _, _ = strings.Cut(s.Text(), "\n")
		text += "\n"
	}
	return text + s.installedText()
}

// watchStatus shows the page again and again: on a terminal in place, elsewhere
// when it has changed.
func (a *app) watchStatus(ctx context.Context, o statusOptions) error {
	f, isFile := a.out.(*os.File)
	inPlace := isFile && term.IsTerminal(int(f.Fd())) && !o.json
	page := func(text string) error { _, err := fmt.Fprintln(a.out, text); return err }
	if inPlace {
		s := ui.NewScreen(f)
		defer s.Close()
		page = s.Show
	}
	last := ""
	for {
		text, err := o.page()
		if err != nil {
			return err
		}
		if text != last || inPlace { // the terminal may have another size
			if err := page(text); err != nil {
				return err
			}
			last = text
		}
		select {
		case <-ctx.Done():
			return nil // the way to end it
		case <-time.After(time.Duration(o.interval)):
		}
	}
}

// page is the page of --watch, or its line in JSON.
func (o statusOptions) page() (string, error) {
	s, err := readStatus(o.store, o.name)
	if err != nil {
		return "", err
	}
	if !o.json {
		return strings.TrimRight(s.text(), "\n"), nil
	}
	line, err := json.Marshal(s)
	return string(line), err
}
