package livepatch

// What is looked at before a livepatch is loaded. Every check has a finding, also
// when all is well, so that a dry run shows what was looked at. The kernel checks
// again; what it would not notice, or would only tell by an error number, is found
// here.

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/klpc/klpc/inspect"
	"github.com/klpc/klpc/internal/modname"
	"github.com/klpc/klpc/target"
)

// Verdict is the result of one check.
type Verdict string

// The verdicts.
const (
	OK      Verdict = "ok"
	Warning Verdict = "warning" // loading works, but not all is as one may think
	Refused Verdict = "refused" // the livepatch is not loaded
	Unknown Verdict = "unknown" // it could not be looked at; the kernel decides
)

// Finding is the result of one check.
type Finding struct {
	Check   string  `json:"check"`
	Verdict Verdict `json:"verdict"`
	Detail  string  `json:"detail"`
	Hint    string  `json:"hint,omitempty"` // what to do
}

// The names of the checks, in the order in which they are made.
const (
	CheckSupport   = "livepatch support"
	CheckRelease   = "release"
	CheckVermagic  = "vermagic"
	CheckModule    = "module"
	CheckSignature = "signature"
	CheckLoaded    = "already loaded"
	CheckReplace   = "atomic replace"
	CheckDepends   = "dependencies"
	CheckObjects   = "objects"
	CheckFtrace    = "ftrace users"
	CheckKprobes   = "kprobes"
)

// checker is a check under way.
type checker struct {
	root     fs.FS
	state    *State
	m        *Module
	findings []Finding
}

func (c *checker) add(check string, v Verdict, hint, format string, args ...any) {
	c.findings = append(c.findings, Finding{check, v, fmt.Sprintf(format, args...), hint})
}

// Check looks at all that would keep a livepatch from being loaded, or from being
// what one thinks it is. allowDrop: it may replace livepatches whose functions it
// does not patch itself.
func Check(root fs.FS, state *State, m *Module, allowDrop bool) []Finding {
	c := &checker{root: root, state: state, m: m}
	c.support()
	c.release()
	c.vermagic()
	c.module()
	c.signature()
	c.loaded()
	if p := state.Find(m.Name); p != nil && p.Phase != Disabled {
		return c.findings // what follows is about loading it
	}
	c.replace(allowDrop)
	c.depends()
	c.objects()
	c.ftrace()
	c.kprobes()
	return c.findings
}

func (c *checker) support() {
	if c.state.Supported {
		c.add(CheckSupport, OK, "", "/%s is there", sysLivepatch)
		return
	}
	c.add(CheckSupport, Refused, "boot a kernel with CONFIG_LIVEPATCH=y (and mount sysfs on /sys)",
		"this kernel (%s) has no /%s", c.state.Release, sysLivepatch)
}

func (c *checker) release() {
	switch built := c.m.Release(); built {
	case c.state.Release:
		c.add(CheckRelease, OK, "", "built for %s, which runs here", built)
	case "":
		c.add(CheckRelease, Refused, "build it again", "the module does not say which kernel it was built for (no vermagic in .modinfo)")
	default:
		// With CONFIG_MODVERSIONS the kernel itself would not compare releases.
		c.add(CheckRelease, Refused, "build it for "+c.state.Release, "built for %s, but %s runs here", built, c.state.Release)
	}
}

// vermagic compares what follows the release with a module of this kernel.
func (c *checker) vermagic() {
	of, want := referenceVermagic(c.root, c.state.Release)
	_, wantFlags, _ := strings.Cut(want, " ")
	_, flags, _ := strings.Cut(c.m.Tag("vermagic"), " ")
	flags, wantFlags = strings.TrimSpace(flags), strings.TrimSpace(wantFlags)
	switch {
	case want == "":
		c.add(CheckVermagic, Unknown, "", "no module of this kernel to compare with in /lib/modules/%s; the kernel compares", c.state.Release)
	case flags == wantFlags:
		c.add(CheckVermagic, OK, "", "%s, as in %s", flags, of)
	default:
		c.add(CheckVermagic, Refused, "build it with this kernel's configuration", "%q, but this kernel's modules have %q (%s)", flags, wantFlags, of)
	}
}

// referenceVermagic is the vermagic of the first module that this kernel comes with.
func referenceVermagic(root fs.FS, release string) (name, vermagic string) {
	dir := path.Join("lib/modules", release, "kernel")
	_ = fs.WalkDir(root, dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return fs.SkipAll // none is installed
		}
		if d.IsDir() || !strings.Contains(d.Name(), ".ko") {
			return nil
		}
		data, err := fs.ReadFile(root, p)
		if err != nil {
			return nil
		}
		if m, err := target.ReadModule(data); err == nil {
			if v := m.Modinfo("vermagic"); len(v) > 0 {
				name, vermagic = d.Name(), v[0]
				return fs.SkipAll
			}
		}
		return nil
	})
	return name, vermagic
}

// module tells what the file alone shows.
func (c *checker) module() {
	for _, p := range c.m.Problems {
		c.add(CheckModule, Warning, "build it again; klpc inspect shows more", "%s", p)
	}
	switch {
	case c.m.Tables == inspect.NoTables:
		c.add(CheckModule, Warning, "klpc inspect shows what it holds", "it says that it is a livepatch, but never enables one")
	case c.m.Tables == inspect.AtRunTime:
		c.add(CheckModule, Unknown, "watch klpc status once it is loaded", "it builds its tables as it is loaded: which functions it patches is not known before")
	case len(c.m.Problems) == 0:
		n := 0
		for _, o := range c.m.Objects {
			n += len(o.Functions)
		}
		c.add(CheckModule, OK, "", "%s of %s", plural(n, "function"), plural(len(c.m.Objects), "object"))
	}
}

// signature looks at the kernel's policies for modules.
func (c *checker) signature() {
	const (
		enforceFile  = "sys/module/module/parameters/sig_enforce"
		lockdownFile = "sys/kernel/security/lockdown"
		disabledFile = "proc/sys/kernel/modules_disabled"
	)
	if content(c.root, disabledFile) == "1" {
		c.add(CheckSignature, Refused, "only a reboot makes it possible again", "loading modules has been switched off (kernel.modules_disabled)")
	}
	lockdown, _ := bracketed(content(c.root, lockdownFile))
	enforce := content(c.root, enforceFile) == "Y"
	var why []string
	if enforce {
		why = append(why, "module.sig_enforce is set")
	}
	if lockdown != "" && lockdown != "none" {
		why = append(why, "the kernel is locked down ("+lockdown+")")
	}
	switch {
	case len(why) > 0 && !c.m.Signed:
		c.add(CheckSignature, Refused, "sign it with a key that the kernel trusts (klpc sign)", "it is not signed, and %s", strings.Join(why, ", "))
	case len(why) > 0:
		c.add(CheckSignature, OK, "", "it is signed; the kernel decides whether it trusts the key, as %s", strings.Join(why, ", "))
	case !c.m.Signed:
		c.add(CheckSignature, OK, "", "it is not signed, which this kernel permits (it notes it as a taint)")
	default:
		c.add(CheckSignature, OK, "", "it is signed")
	}
}

// content is what a small file says, or "" if it cannot be read.
func content(root fs.FS, name string) string {
	data, err := fs.ReadFile(root, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// bracketed is the chosen one of "none [integrity] confidentiality".
func bracketed(text string) (string, bool) {
	_, rest, ok := strings.Cut(text, "[")
	if !ok {
		return "", false
	}
	chosen, _, ok := strings.Cut(rest, "]")
	return chosen, ok
}

func (c *checker) loaded() {
	p := c.state.Find(c.m.Name)
	if p == nil {
		if c.state.HasModule(c.m.Name) {
			c.add(CheckLoaded, Refused, "build the livepatch with another --name", "a module %s is loaded that is no livepatch", c.m.Name)
			return
		}
		c.add(CheckLoaded, OK, "", "no livepatch of that name is loaded")
		return
	}
	if p.Phase == Disabled {
		c.add(CheckLoaded, OK, "", "its module is left over from before and does nothing")
		return
	}
	same, known := c.m.same(p.Module)
	switch {
	case known && !same:
		c.add(CheckLoaded, Refused, fmt.Sprintf("klpc unload %s first, or build this one with another --name so that it can replace it", c.m.Name),
			"another build of %s is loaded (%s)", c.m.Name, p.Phase)
	case !known:
		c.add(CheckLoaded, OK, "", "it is loaded already (%s), as far as its name tells", p.Phase)
	default:
		c.add(CheckLoaded, OK, "", "it is loaded already (%s)", p.Phase)
	}
}

// replace looks for functions that nobody would patch any more.
func (c *checker) replace(allowDrop bool) {
	switch {
	case c.m.Replace == nil:
		c.add(CheckReplace, Unknown, "look at klpc status before and after", "the module does not show whether it replaces the livepatches that are loaded")
		return
	case !*c.m.Replace:
		c.add(CheckReplace, OK, "", "it leaves the livepatches that are loaded in place")
		return
	}
	dropped := c.dropped()
	switch {
	case len(dropped) == 0:
		c.add(CheckReplace, OK, "", "no function that is patched now loses its patch")
	case allowDrop:
		c.add(CheckReplace, Warning, "", "the fixes of these functions are lost: %s", list(dropped))
	default:
		c.add(CheckReplace, Refused,
			"build one livepatch of all patches, or build this one with --no-replace; --allow-drop loads it all the same",
			"it replaces all livepatches that are loaded, and does not patch what they fix: %s", list(dropped))
	}
}

// dropped are the functions that active livepatches patch and m does not.
func (c *checker) dropped() []string {
	var dropped []string
	for _, p := range c.state.Patches {
		if p.Phase == Disabled || p.Phase == Disabling {
			continue
		}
		for _, o := range p.Objects {
			for _, f := range o.Functions {
				if !c.m.patches(o.Name, f) {
					dropped = append(dropped, fmt.Sprintf("%s (%s, by %s)", f, o.Name, p.Name))
				}
			}
		}
	}
	return dropped
}

// patches tells whether the module patches a function. A position of 0 in the
// module says that the name is unique, which the kernel shows as 1.
func (m *Module) patches(object string, f Function) bool {
	for _, o := range m.Objects {
		if modname.Canonical(o.Name) != object {
			continue
		}
		for _, g := range o.Functions {
			if g.Name == f.Name && max(g.Sympos, 1) == uint64(f.Sympos) {
				return true
			}
		}
	}
	return false
}

// String is the function's name, with its position where that tells something.
func (f Function) String() string {
	if f.Sympos > 1 {
		return fmt.Sprintf("%s,%d", f.Name, f.Sympos)
	}
	return f.Name
}

func (c *checker) depends() {
	var missing []string
	for _, d := range c.m.Depends() {
		if !c.state.HasModule(d) {
			missing = append(missing, d)
		}
	}
	switch {
	case len(missing) > 0:
		c.add(CheckDepends, Refused, "modprobe "+strings.Join(missing, " "), "it needs modules that are not loaded: %s", list(missing))
	case len(c.m.Depends()) > 0:
		c.add(CheckDepends, OK, "", "loaded: %s", list(c.m.Depends()))
	default:
		c.add(CheckDepends, OK, "", "it needs no other module")
	}
}

// objects tells which modules the livepatch would wait for.
func (c *checker) objects() {
	var waits []string
	for _, o := range c.m.Objects {
		if o.Name != vmlinux && !c.state.HasModule(o.Name) {
			waits = append(waits, o.Name)
		}
	}
	if len(waits) > 0 {
		c.add(CheckObjects, OK, "", "not loaded, patched as soon as they are: %s", list(waits))
		return
	}
	c.add(CheckObjects, OK, "", "all that it patches is loaded")
}

// ftrace looks for others that hook into the functions, in the kernel's own list.
func (c *checker) ftrace() {
	hooks, where, err := readHooks(c.root)
	if err != nil {
		c.add(CheckFtrace, Unknown, unreadableHint(err, "tracefs", "/sys/kernel/tracing"), "who traces the functions cannot be read: %v", err)
		return
	}
	before := len(c.findings)
	for _, h := range hooks {
		if !c.m.names(h.object, h.function) {
			continue
		}
		switch ours := c.patchers(h.object, h.function); {
		case h.ipmodify && len(ours) == 0 && !h.klp:
			c.add(CheckFtrace, Refused, "remove it first: a kprobe with a post handler, or whatever else redirects calls",
				"something else redirects %s (%s): the kernel lets only one do that", h.name(), h.line)
		case h.direct:
			c.add(CheckFtrace, Warning, "detach the BPF program if it depends on the old code (bpftool link)",
				"a BPF trampoline is attached to %s (%s): it goes on to run at calls, but sees the patched function's work", h.name(), h.line)
		case h.users > 1 || h.users == 1 && !h.klp && len(ours) == 0:
			c.add(CheckFtrace, Warning, "", "%s is traced (%s): its calls are traced on, what happens inside is the new code", h.name(), h.line)
		}
	}
	if len(c.findings) == before {
		c.add(CheckFtrace, OK, "", "nobody else hooks into the functions (%s)", where)
	}
}

// unreadableHint says how a file of tracefs or debugfs can be read.
func unreadableHint(err error, kind, dir string) string {
	if errors.Is(err, fs.ErrPermission) {
		return "root can read it, unless the kernel is locked down"
	}
	return fmt.Sprintf("mount -t %s nodev %s", kind, dir)
}

// kprobes looks for probes in the old code, which would not be hit any more.
func (c *checker) kprobes() {
	probes, err := readProbes(c.root)
	if err != nil {
		c.add(CheckKprobes, Unknown, unreadableHint(err, "debugfs", "/sys/kernel/debug"), "the list of kprobes cannot be read: %v", err)
		return
	}
	before := len(c.findings)
	for _, p := range probes {
		if !c.m.names(p.object, p.function) {
			continue
		}
		switch {
		case p.offset == 0 || p.ftrace:
			c.add(CheckKprobes, Warning, "", "a %s is on the entry of %s: it is hit on, but with a post handler the kernel would refuse the livepatch", p.kind, p.name())
		default:
			c.add(CheckKprobes, Warning, "set the probe anew, in the livepatch's function, once it is loaded",
				"a %s is inside of %s, at +%#x: the patched function does not come by there, it is not hit any more", p.kind, p.name(), p.offset)
		}
	}
	if len(c.findings) == before {
		c.add(CheckKprobes, OK, "", "no probe is in the functions")
	}
}

// names tells whether the module patches a function of that name. ftrace's lists
// give no positions, so that it may be another function of that name.
func (m *Module) names(object, function string) bool {
	for _, o := range m.Objects {
		if modname.Canonical(o.Name) == object && slices.ContainsFunc(o.Functions, func(f inspect.Function) bool { return f.Name == function }) {
			return true
		}
	}
	return false
}

// patchers are the active livepatches that patch a function of that name.
func (c *checker) patchers(object, function string) []string {
	var names []string
	for _, p := range c.state.Patches {
		for _, o := range p.Objects {
			if o.Name == object && slices.ContainsFunc(o.Functions, func(f Function) bool { return f.Name == function }) {
				names = append(names, p.Name)
			}
		}
	}
	return names
}
