package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"

	"github.com/klpc/klpc/store"
)

// Where the configuration is, and what overrides it.
const (
	configPath     = "/etc/klpc/klpc.conf"
	configVariable = "KLPC_CONFIG" // another configuration file
	storeVariable  = "KLPC_STORE"  // another store
)

// config is the configuration file: TOML.
type config struct {
	// Store is the folder of the patch store.
	Store string `toml:"store"`
	// UncleanBoots is how many boots in a row may end uncleanly, soon after
	// livepatches were restored, until these are held back; 0: any number.
	UncleanBoots int `toml:"unclean-boots"`
	// BootTimeout is how long a transition may take at boot.
	BootTimeout time.Duration `toml:"boot-timeout"`
}

// readConfig reads the configuration file; the defaults if there is none.
func readConfig() (config, error) {
	c := config{Store: store.DefaultRoot, UncleanBoots: store.DefaultUncleanBoots, BootTimeout: time.Minute}
	path := configPath
	if p := os.Getenv(configVariable); p != "" {
		path = p
	}
	meta, err := toml.DecodeFile(path, &c)
	switch {
	case errors.Is(err, fs.ErrNotExist) && path == configPath:
		return c, nil
	case err != nil:
		return c, fmt.Errorf("read %s: %w", path, err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		var keys []string
		for _, k := range unknown {
			keys = append(keys, k.String())
		}
		return c, fmt.Errorf("read %s: unknown settings: %s", path, strings.Join(keys, ", "))
	}
	if !filepath.IsAbs(c.Store) || c.UncleanBoots < 0 || c.BootTimeout < 0 {
		return c, fmt.Errorf("read %s: store must be an absolute path, the other settings not negative", path)
	}
	return c, nil
}

// storeFlag adds the flag that chooses the store.
func storeFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "store", "", "the patch store is in `DIR`, not where "+configPath+" says")
}

// openStore opens the store: of the flag, the environment, or the configuration.
func openStore(flag string) (*store.Store, config, error) {
	c, err := readConfig()
	if err != nil {
		return nil, c, err
	}
	if dir := os.Getenv(storeVariable); dir != "" {
		c.Store = dir
	}
	if flag != "" {
		c.Store = flag
	}
	if c.Store, err = filepath.Abs(c.Store); err != nil {
		return nil, c, err
	}
	return store.Open(c.Store), c, nil
}
