package livepatch

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// insertErrors is what finit_module(2) may fail with for a livepatch: errno, what
// it means, what to do. Sources: kernel/module/main.c, kernel/module/signing.c
// and kernel/livepatch/core.c, Linux 6.1 to 7.x.
var insertErrors = []struct {
	errno syscall.Errno
	means string
	hint  string
}{
	{syscall.ENOEXEC, "the kernel does not accept the file", "it was built for another kernel or configuration, or is damaged: build it for this kernel"},
	{syscall.EKEYREJECTED, "the kernel wants modules to be signed with a key that it trusts", "sign it (klpc sign) with a key of the kernel's or the machine owner's keyring (MOK)"},
	{syscall.ENOKEY, "the kernel does not have the key that the module is signed with", "enrol the key, or sign it with one that the kernel trusts"},
	{syscall.EBADMSG, "the module's signature is damaged", "sign it again"},
	{syscall.EINVAL, "the livepatch core refuses it", ""},
	{syscall.EEXIST, "a module of that name is loaded already, or the livepatch names a function twice", "klpc status shows what is loaded"},
	{syscall.EBUSY, "another transition is under way, or something else redirects one of the functions", "klpc status shows the transition; see what traces the functions"},
	{syscall.ENOENT, "a symbol that it needs is not in this kernel or in a module that is loaded", "build it for this kernel; load the modules that it depends on first"},
	{syscall.EPERM, "loading modules is not permitted here", "it takes CAP_SYS_MODULE, no lockdown for unsigned modules, and kernel.modules_disabled=0"},
	{syscall.ENODEV, "the livepatch core is not ready", ""},
	{syscall.ENOMEM, "the kernel has no memory for it", ""},
	{syscall.ENOSYS, "this kernel cannot load modules", ""},
	{syscall.ETXTBSY, "the file is being written to", "wait until it is complete"},
}

// insertError says why the kernel did not load a module, in its own words, too.
func insertError(m *Module, err error, log []string) error {
	text := fmt.Sprintf("load %s: %v", m.Name, err)
	hint := ""
	for _, e := range insertErrors {
		if errors.Is(err, e.errno) {
			text = fmt.Sprintf("load %s: %s (%s)", m.Name, e.means, errnoName(e.errno))
			hint = e.hint
		}
	}
	if isFtraceConflict(log) {
		text = fmt.Sprintf("load %s: something else redirects one of the functions that it patches (%s)", m.Name, errnoName(syscall.EBUSY))
		hint = "remove the other user: a kprobe with a post handler, or a BPF program"
	}
	for _, l := range lastLines(log) {
		text += "\nkernel: " + l
	}
	if hint != "" {
		text += "\nwhat to do: " + hint
	}
	return &insertFailure{text, err}
}

// insertFailure keeps the error number for those who ask.
type insertFailure struct {
	text string
	err  error
}

func (e *insertFailure) Error() string { return e.text }
func (e *insertFailure) Unwrap() error { return e.err }

// lastLines are the lines of the kernel log to show: the last ones that say more
// than that the kernel is tainted.
func lastLines(log []string) []string {
	const most = 6
	var told []string
	for _, l := range log {
		if !strings.Contains(l, "taint") {
			told = append(told, l)
		}
	}
	return told[max(0, len(told)-most):]
}

// errnoName is the name that manuals use, and the text.
func errnoName(e syscall.Errno) string { return unix.ErrnoName(e) + ", " + e.Error() }
