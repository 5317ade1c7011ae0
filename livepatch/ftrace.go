package livepatch

// Who else hooks into functions. enabled_functions of tracefs lists all functions
// that ftrace calls something for, one a line, t_show in kernel/trace/ftrace.c:
//
//	pipe_read (1) R I     	tramp: 0xffffffffc0a4e000 (klp_ftrace_handler+0x0/0x1c0) ->…
//	fb_flashcursor [fb] (2)    I D  	tramp: …
//		direct-->bpf_trampoline_6442…
//
// the number of users, then R (wants registers), I (IPMODIFY: changes where the
// call goes, as livepatches do), D (direct: a BPF trampoline) and, since 6.2, O
// and M. debugfs has kprobes/list, report_probe in kernel/kprobes.c:
//
//	ffffffff812d1f60  k  pipe_read+0x0    [FTRACE]
//	ffffffff812d2000  r  fb_open+0x20  fb [DISABLED][OPTIMIZED]

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// Where tracefs is mounted: on its own, or below debugfs.
func enabledFunctions() []string {
	return []string{"sys/kernel/tracing/enabled_functions", "sys/kernel/debug/tracing/enabled_functions"}
}

const kprobesList = "sys/kernel/debug/kprobes/list"

// hook is a function that ftrace calls something for.
type hook struct {
	function, object string
	users            int
	ipmodify, direct bool
	klp              bool   // one of the users is the livepatch core
	line             string // what the kernel says, without addresses' trampolines
}

func (h hook) name() string { return named(h.function, h.object) }

func named(function, object string) string {
	if object == vmlinux {
		return function
	}
	return function + " [" + object + "]"
}

// readHooks reads the list of functions that are hooked into.
func readHooks(root fs.FS) (hooks []hook, where string, err error) {
	var errs []error
	for _, name := range enabledFunctions() {
		text, err := fs.ReadFile(root, name)
		if err != nil {
			errs = append(errs, fmt.Errorf("/%s: %w", name, cause(err)))
			continue
		}
		for line := range strings.Lines(string(text)) {
			if h, ok := parseHook(line); ok {
				hooks = append(hooks, h)
			}
		}
		return hooks, "/" + name, nil
	}
	return nil, "", errors.Join(errs...)
}

// parseHook reads a line of enabled_functions; false: it goes on with the line
// before, or says nothing of a function.
func parseHook(line string) (hook, bool) {
	head, rest, ok := strings.Cut(line, " (")
	count, rest, closed := strings.Cut(rest, ")")
	users, err := strconv.Atoi(count)
	if !ok || !closed || err != nil || strings.HasPrefix(line, "\t") {
		return hook{}, false
	}
	h := hook{users: users, object: vmlinux}
	words := strings.Fields(head)
	if len(words) == 0 {
		return hook{}, false
	}
	h.function = words[0]
	if len(words) > 1 {
		h.object = strings.Trim(words[1], "[]")
	}
	flags, tramp, _ := strings.Cut(rest, "\t")
	for _, f := range strings.Fields(flags) {
		switch f {
		case "I":
			h.ipmodify = true
		case "D":
			h.direct = true
		}
	}
	h.klp = strings.Contains(tramp, "klp_ftrace_handler")
	h.line = strings.Join(strings.Fields(fmt.Sprintf("%s %s", plural(users, "user"), flags)), " ")
	return h, true
}

// probe is a kprobe.
type probe struct {
	function, object string
	offset           uint64 // bytes from the start of the function
	kind             string // kprobe or kretprobe
	ftrace           bool   // it uses ftrace, at the entry of the function
}

func (p probe) name() string { return named(p.function, p.object) }

// readProbes reads the list of kprobes.
func readProbes(root fs.FS) ([]probe, error) {
	text, err := fs.ReadFile(root, kprobesList)
	if err != nil {
		return nil, fmt.Errorf("/%s: %w", kprobesList, cause(err))
	}
	var probes []probe
	for line := range strings.Lines(string(text)) {
		if p, ok := parseProbe(line); ok {
			probes = append(probes, p)
		}
	}
	return probes, nil
}

// parseProbe reads a line of kprobes/list.
func parseProbe(line string) (probe, bool) {
	f := strings.Fields(line)
	if len(f) < 3 {
		return probe{}, false
	}
	p := probe{kind: map[string]string{"k": "kprobe", "r": "kretprobe"}[f[1]], object: vmlinux}
	name, offset, ok := strings.Cut(f[2], "+0x")
	if p.kind == "" || !ok {
		return probe{}, false
	}
	offset, _, _ = strings.Cut(offset, "/") // "%pS", where the symbol was not given
	n, err := strconv.ParseUint(offset, 16, 64)
	if err != nil {
		return probe{}, false
	}
	p.function, p.offset = name, n
	for _, word := range f[3:] {
		switch {
		case strings.HasSuffix(word, "[FTRACE]"):
			p.ftrace = true
		case !strings.HasPrefix(word, "[") || strings.HasSuffix(word, "]") && len(word) > 2 && strings.ToUpper(word) != word:
			p.object = strings.Trim(word, "[]")
		}
	}
	return p, true
}
