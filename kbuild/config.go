package kbuild

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Config is a kernel configuration, as in .config.
type Config struct{ values map[string]string }

// ParseConfig reads a .config. Lines that are not assignments are comments;
// anything else is an error.
func ParseConfig(r io.Reader) (*Config, error) {
	c := &Config{values: map[string]string{}}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	var errs []error
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok || !strings.HasPrefix(name, "CONFIG_") {
			errs = append(errs, fmt.Errorf(".config:%d: not an assignment: %q", n, line))
			continue
		}
		c.values[name] = unquoteConfig(value)
	}
	if err := sc.Err(); err != nil {
		errs = append(errs, fmt.Errorf("read .config: %w", err))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return c, nil
}

// unquoteConfig removes the quotes of a string value; Kconfig escapes only
// the quote and the backslash.
func unquoteConfig(v string) string {
	if len(v) < 2 || v[0] != '"' || v[len(v)-1] != '"' {
		return v
	}
	return strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(v[1 : len(v)-1])
}

// Get returns the value of a symbol such as CONFIG_CC_VERSION_TEXT, without
// quotes: "y", "m", a number or a string; "" if it is not set.
func (c *Config) Get(name string) string { return c.values[name] }

// Bool tells whether a symbol is y.
func (c *Config) Bool(name string) bool { return c.values[name] == "y" }

func readConfig(path string) (*Config, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errors.New("no .config: run make oldconfig, then build it")
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ParseConfig(f)
}
