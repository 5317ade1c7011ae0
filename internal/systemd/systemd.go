// Package systemd holds the units that restore livepatches at boot, and puts them
// where systemd finds them.
//
// It starts nothing: what is installed takes effect at the next boot. Formats:
// systemd.unit(5), systemd.service(5), systemd.timer(5).
package systemd

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/klpc/klpc/internal/run"
)

// Main is the unit that is enabled; it wants the others.
const Main = "klpc.service"

//go:embed *.service *.timer
var units embed.FS

// program is how the units call klpc, where the packages put it.
const program = "/usr/bin/klpc"

// Where units lie, below the root: the administrator's, and those of packages.
const (
	etcDir  = "etc/systemd/system"
	wantDir = etcDir + "/sysinit.target.wants"
)

func vendorDirs() []string { return []string{"usr/lib/systemd/system", "lib/systemd/system"} }

// Step is one thing to do.
type Step struct {
	Text string // "write /etc/systemd/system/klpc.service"
	Do   func() error
}

// Enabled tells whether the main unit is started at boot.
func Enabled(root string) bool {
	_, err := os.Lstat(filepath.Join(root, wantDir, Main))
	return err == nil
}

// names are the names of the units, sorted.
func names() ([]string, error) { return fs.Glob(units, "klpc*") }

// Units returns the units' texts by name, for a klpc at the given path.
func Units(klpc string) (map[string][]byte, error) {
	all, err := names()
	if err != nil {
		return nil, err
	}
	texts := map[string][]byte{}
	for _, n := range all {
		text, err := units.ReadFile(n)
		if err != nil {
			return nil, err
		}
		texts[n] = bytes.ReplaceAll(text, []byte("="+program+" "), []byte("="+klpc+" "))
	}
	return texts, nil
}

// vendor returns the folder in which a package has put the main unit, or "".
func vendor(root string) string {
	for _, d := range vendorDirs() {
		if _, err := os.Stat(filepath.Join(root, d, Main)); err == nil {
			return d
		}
	}
	return ""
}

// Install plans to write the units below root, unless a package has brought
// them, and to enable the main one. What is so already needs no step.
func Install(root, klpc string) ([]Step, error) {
	var steps []Step
	dir := vendor(root)
	if dir == "" {
		dir = etcDir
		all, err := names()
		if err != nil {
			return nil, err
		}
		texts, err := Units(klpc)
		if err != nil {
			return nil, err
		}
		for _, n := range all {
			file := filepath.Join(root, etcDir, n)
			if have, err := os.ReadFile(file); err == nil && bytes.Equal(have, texts[n]) {
				continue
			}
			steps = append(steps, Step{"write " + file, func() error { return write(file, texts[n]) }})
		}
	}
	link, to := filepath.Join(root, wantDir, Main), path.Join("/", dir, Main)
	if have, err := os.Readlink(link); err != nil || have != to {
		steps = append(steps, Step{fmt.Sprintf("enable it: link %s to %s", link, to), func() error {
			if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
				return err
			}
			return renameio.Symlink(to, link)
		}})
	}
	return steps, nil
}

func write(file string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return renameio.WriteFile(file, text, 0o644)
}

// Uninstall plans to disable the main unit and to remove the units that Install
// has written; those of a package stay.
func Uninstall(root string) ([]Step, error) {
	var steps []Step
	remove := func(file, text string) {
		if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
			steps = append(steps, Step{text + file, func() error { return os.Remove(file) }})
		}
	}
	remove(filepath.Join(root, wantDir, Main), "disable it: remove ")
	all, err := names()
	if err != nil {
		return nil, err
	}
	for _, n := range all {
		remove(filepath.Join(root, etcDir, n), "remove ")
	}
	return steps, nil
}

// Runs tells whether systemd is the init of this system, sd_booted(3).
func Runs() bool {
	_, err := os.Lstat("/run/systemd/system")
	return err == nil
}

// Reload has a running systemd read its units again.
func Reload(ctx context.Context) error {
	_, err := run.Do(ctx, run.Cmd{Args: []string{"systemctl", "daemon-reload"}})
	return err
}

// ShuttingDown asks a running systemd whether the system goes down.
func ShuttingDown(ctx context.Context) bool {
	// It fails unless the state is "running".
	r, _ := run.Do(ctx, run.Cmd{Args: []string{"systemctl", "is-system-running"}})
	return strings.TrimSpace(string(r.Stdout)) == "stopping"
}
