package distro

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// config is a parsed .config: symbols with their values as written. What is
// "not set" is absent, as it is for the kernel.
type config map[string]string

func parseConfig(text string) config {
	c := config{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if ok && strings.HasPrefix(name, "CONFIG_") {
			c[name] = value
		}
	}
	return c
}

// text returns the value of a string symbol without its quotes.
func (c config) text(name string) string { return strings.Trim(c[name], `"`) }

// configDiff is one symbol that differs.
type configDiff struct{ name, want, have string }

func (d configDiff) String() string {
	return fmt.Sprintf("%s is %s, the kernel has %s", d.name, orUnset(d.have), orUnset(d.want))
}

func orUnset(v string) string {
	if v == "" {
		return "not set"
	}
	return v
}

// machineSymbols describe the machine that configured and signed the kernel. No code
// depends on them but through other symbols, which are compared.
var machineSymbols = []string{
	"CONFIG_CC_VERSION_TEXT", // compared by CheckCompiler
	"CONFIG_PAHOLE_VERSION",  // pahole only runs after vmlinux is linked
	"CONFIG_RUSTC_VERSION",   // 6.12: only matters with CONFIG_RUST
	"CONFIG_RUSTC_VERSION_TEXT",
	"CONFIG_RUSTC_LLVM_VERSION",
	"CONFIG_RUSTC_LLVM_MAJOR_VERSION",
	"CONFIG_RUST_IS_AVAILABLE",
	"CONFIG_BINDGEN_VERSION_TEXT",
	"CONFIG_LLD_VERSION", // not the linker in use
	// Keys and the salt of build IDs: they reach certs/ and notes only, and
	// Debian leaves them out of the configuration that it installs in /boot.
	"CONFIG_BUILD_SALT",
	"CONFIG_MODULE_SIG_ALL",
	"CONFIG_MODULE_SIG_KEY",
	"CONFIG_SYSTEM_TRUSTED_KEYS",
}

// rustcProbes is the prefix of symbols that only say what rustc can do.
const rustcProbes = "CONFIG_RUSTC_HAS_"

// toolSymbols describe assembler and linker: another version is no other
// configuration, but worth a warning.
var toolSymbols = []string{"CONFIG_AS_VERSION", "CONFIG_LD_VERSION"}

// compareConfig compares the kernel's configuration with what the tree
// was configured to: the differences that change the kernel, and those in the
// versions of tools. Both are sorted by symbol.
func compareConfig(want, have config) (functional, tools []configDiff) {
	names := map[string]bool{}
	for n := range want {
		names[n] = true
	}
	for n := range have {
		names[n] = true
	}
	for _, n := range slices.Sorted(maps.Keys(names)) {
		d := configDiff{name: n, want: want[n], have: have[n]}
		switch {
		case d.want == d.have || slices.Contains(machineSymbols, n) || strings.HasPrefix(n, rustcProbes):
		case slices.Contains(toolSymbols, n):
			tools = append(tools, d)
		default:
			functional = append(functional, d)
		}
	}
	return functional, tools
}

// configError lists functional differences.
type configError []configDiff

func (e configError) Error() string {
	const most = 20
	var b strings.Builder
	b.WriteString("make changed the kernel's configuration, so objects compiled here would not match it:")
	for i, d := range e {
		if i == most {
			fmt.Fprintf(&b, "\n  and %d more", len(e)-most)
			break
		}
		fmt.Fprintf(&b, "\n  %s", d)
	}
	return b.String()
}
