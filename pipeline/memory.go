package pipeline

// How many compilers run at once.
//
// As many as there are processors, or as the user says, but no more than there is
// memory for: a machine that swaps is slower than one that waits. What is there is
// the least of what the machine has available, of what each control group around
// this process leaves (what it can drop from its page cache counts as left), and of
// the limits on the process itself. One job always runs.

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// What one job may need at its peak, in bytes: the compiler and this process's
// part. Of 6.12's units, 99 of 100 take less (cc1: 60 to 100 MB for the
// preprocessor, 90 to 350 MB for a compile with debug information).
const (
	preprocessMemory = 160 << 20
	compileMemory    = 400 << 20
	// spareMemory is left to everything else.
	spareMemory = 256 << 20
)

// jobsFor bounds a number of jobs by the available memory; both in bytes.
func jobsFor(jobs int, available, each int64) int {
	return int(max(1, min(int64(jobs), (available-spareMemory)/each)))
}

// gate lets as many jobs run at once as there is memory for, judged anew as each
// begins.
type gate struct {
	jobs      int
	each      int64 // bytes
	available func() int64

	mu      sync.Mutex
	running int
	freed   *sync.Cond
	waited  bool // a job had to wait for memory
}

func newGate(jobs int, each int64, available func() int64) *gate {
	g := &gate{jobs: jobs, each: each, available: available}
	g.freed = sync.NewCond(&g.mu)
	return g
}

// enter waits until a job may begin, and returns what ends it. What is available
// while others run is compared with what all of them may need: they may not have
// taken any of it yet.
func (g *gate) enter() (leave func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.running > 0 && g.running >= jobsFor(g.jobs, g.available(), g.each) {
		g.waited = true
		g.freed.Wait()
	}
	g.running++
	return g.leave
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running--
	g.freed.Broadcast()
}

// availableMemory is how many bytes programs can use before the machine swaps or
// a limit is reached; root is the file system.
func availableMemory(root fs.FS, limits ...uint64) int64 {
	least := int64(math.MaxInt64)
	if data, err := fs.ReadFile(root, "proc/meminfo"); err == nil {
		if kb, ok := field(data, "MemAvailable:"); ok {
			least = kb << 10
		}
	}
	if data, err := fs.ReadFile(root, "proc/self/cgroup"); err == nil {
		least = min(least, leftInGroups(root, string(data)))
	}
	for _, l := range limits {
		if l < math.MaxInt64 {
			least = min(least, int64(l))
		}
	}
	return least
}

// processLimits are the limits on this process's memory that its children
// inherit, in bytes.
func processLimits() []uint64 {
	var out []uint64
	for _, which := range []int{unix.RLIMIT_AS, unix.RLIMIT_DATA, unix.RLIMIT_RSS} {
		var r unix.Rlimit
		if unix.Getrlimit(which, &r) == nil {
			out = append(out, r.Cur)
		}
	}
	return out
}

// hierarchies are the two kinds of control groups: cgroup-v2.rst and
// cgroup-v1/memory.rst in the kernel's Documentation/admin-guide.
var hierarchies = []struct{ controller, mount, limit, usage, cache string }{
	{"", "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"},
	{"", "sys/fs/cgroup", "memory.high", "memory.current", "inactive_file"},
	{"memory", "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"},
}

// leftInGroups is what the control groups of /proc/self/cgroup leave, in bytes.
func leftInGroups(root fs.FS, groups string) int64 {
	least := int64(math.MaxInt64)
	for _, line := range strings.Split(groups, "\n") {
		// hierarchy number:controllers:path
		part := strings.SplitN(line, ":", 3)
		if len(part) != 3 {
			continue
		}
		for _, h := range hierarchies {
			isIts := part[1] == h.controller || h.controller != "" && strings.Contains(","+part[1]+",", ","+h.controller+",")
			if !isIts {
				continue
			}
			for dir := path.Clean("/" + part[2]); ; dir = path.Dir(dir) {
				least = min(least, leftInGroup(root, h.mount+dir, h.limit, h.usage, h.cache))
				if dir == "/" {
					break
				}
			}
		}
	}
	return least
}

// leftInGroup is what one control group leaves; it has no limit if that cannot be
// read (a group outside of this process's namespace).
func leftInGroup(root fs.FS, dir, limit, usage, cache string) int64 {
	number := func(name string) (int64, bool) {
		data, err := fs.ReadFile(root, path.Join(dir, name))
		if err != nil {
			return 0, false
		}
		n, err := strconv.ParseInt(string(bytes.TrimSpace(data)), 10, 64)
		return n, err == nil // "max" is no number
	}
	most, ok1 := number(limit)
	used, ok2 := number(usage)
	if !ok1 || !ok2 {
		return math.MaxInt64
	}
	left := most - used
	if data, err := fs.ReadFile(root, path.Join(dir, "memory.stat")); err == nil {
		n, _ := field(data, cache)
		left += n
	}
	return max(0, left)
}

// field is the number behind a name at the beginning of a line.
func field(text []byte, name string) (int64, bool) {
	sc := bufio.NewScanner(bytes.NewReader(text))
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) < 2 || f[0] != name {
			continue
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		return n, err == nil
	}
	return 0, false
}

// gate makes the gate of a step, and what to call at its end.
func (b *builder) gate(each int64) (g *gate, end func()) {
	limits := processLimits()
	g = newGate(b.o.Jobs, each, func() int64 { return availableMemory(os.DirFS("/"), limits...) })
	return g, func() {
		if g.waited {
			b.note(fmt.Sprintf("the available memory does not suffice for %d jobs of %d MiB at once: some had to wait", g.jobs, each>>20))
		}
	}
}
