package livetest

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// suspicious matches the lines of a kernel log that tell of a fault. Sources:
// kernel/panic.c, lib/bug.c, arch/x86/kernel/traps.c and dumpstack.c, lib/refcount.c,
// kernel/watchdog.c, kernel/rcu/tree_stall.h, kernel/hung_task.c,
// kernel/module/main.c and version.c, kernel/livepatch/core.c of Linux 6.1 to 6.12.
var suspicious = regexp.MustCompile(strings.Join([]string{
	`WARNING: `,
	`BUG: `,
	`kernel BUG at`,
	`Oops`,
	`Call Trace:`,
	`Kernel panic`,
	`general protection`,
	`double fault`,
	`invalid opcode`,
	`Unable to handle`,
	`Missing ENDBR`,
	`refcount_t: `,
	`UBSAN: `,
	`KASAN: `,
	`KCSAN: `,
	`soft lockup`,
	`hard LOCKUP`,
	`rcu.*(stall|starved)`,
	`blocked for more than \d+ seconds`,
	`Unknown symbol`,
	`disagrees about version`,
	`version magic '.*' should be`,
	`[Ii]nvalid relocation`,
	`[Oo]verflow in relocation`,
	`existing value is nonzero`,
	`not compiled with`,
	`ftrace failed to modify`,
	`livepatch: .*([Ff]ail|not found|ambig|error|refusing|invalid)`,
}, "|"))

// harmless matches lines that the expression above may match and that belong to
// every livepatch: nothing but the taints.
var harmless = regexp.MustCompile(`tainting kernel|taints kernel|module verification failed: signature`)

// quoted is a name inside a message. A livepatch may well be called 'fail_fix'.
var quoted = regexp.MustCompile(`'[^']*'`)

// markOf is the text that /init writes to the kernel log when a step begins.
func markOf(step int) string { return fmt.Sprintf("%s step %d begins", logMark, step) }

var stepMark = regexp.MustCompile(regexp.QuoteMeta(logMark) + ` step (\d+) begins`)

// LogLine is one line of the kernel log.
type LogLine struct {
	Step int // index of the step that ran at that time
	Text string
}

// testLog returns the part of a kernel log that belongs to the steps: what the
// kernel printed while it booted is not the livepatch's doing. A log without any
// mark gives nothing.
func testLog(log string) []LogLine {
	var lines []LogLine
	step := -1
	for line := range strings.Lines(log) {
		line = strings.TrimRight(line, "\r\n")
		if m := stepMark.FindStringSubmatch(line); m != nil {
			// The pattern takes digits only; a number too big is no mark of ours.
			if n, err := strconv.Atoi(m[1]); err == nil {
				step = n
				continue
			}
		}
		if step >= 0 {
			lines = append(lines, LogLine{Step: step, Text: line})
		}
	}
	return lines
}

// faults returns the lines that tell of a fault, except while a step runs that may
// warn.
func faults(lines []LogLine, steps []Step) []LogLine {
	var found []LogLine
	for _, l := range lines {
		if l.Step < len(steps) && steps[l.Step].MayWarn {
			continue
		}
		if suspicious.MatchString(quoted.ReplaceAllString(l.Text, "''")) && !harmless.MatchString(l.Text) {
			found = append(found, l)
		}
	}
	return found
}
