package ui

import (
	"fmt"
	"strings"
)

// Mode is how progress is shown. It is a flag's value (pflag.Value).
type Mode string

// The modes.
const (
	Auto  Mode = "auto"  // TTY on a terminal that can do it, Plain elsewhere
	Plain Mode = "plain" // a line for each step, with the time since the start
	TTY   Mode = "tty"   // a line that counts and becomes the step's duration
	Quiet Mode = "quiet" // what stays: notes, problems, errors
	JSON  Mode = "json"  // an object a line, for programs (docs/progress.md)
)

// Modes are the values of a flag, the default first.
func Modes() []string {
	return []string{string(Auto), string(Plain), string(TTY), string(Quiet), string(JSON)}
}

// String returns the mode's name.
func (m *Mode) String() string { return string(*m) }

// Type names the kind of value for the flag's help.
func (m *Mode) Type() string { return "MODE" }

// Set takes a mode by its name.
func (m *Mode) Set(name string) error {
	for _, known := range Modes() {
		if name == known {
			*m = Mode(name)
			return nil
		}
	}
	return fmt.Errorf("want one of %s", strings.Join(Modes(), ", "))
}
